"""An OMEMO client for tests: Python-OMEMO for the cryptography, slixmpp for the
stream. Started with one argument, a JSON object; takes one command a line on
standard input and prints one event a line, both JSON objects. Every device is
trusted on sight. Commands, received messages and device lists are worked on one
after the other, in the order of their arrival."""

import asyncio
import json
import re
import secrets
import sys
from datetime import datetime, timezone
from xml.etree import ElementTree
from xml.sax.saxutils import escape, quoteattr

import oldmemo
import oldmemo.etree
import omemo
import twomemo
import twomemo.etree
from omemo.session_manager import BundleDownloadFailed, BundleNotFound, DeviceListDownloadFailed, NoEligibleDevices
from omemo.storage import Just, Nothing, Storage
from slixmpp import ClientXMPP
from slixmpp.exceptions import IqError, IqTimeout
from slixmpp.xmlstream.handler import Callback
from slixmpp.xmlstream.matcher import MatchXPath

LEGACY = "eu.siacs.conversations.axolotl"
V2 = "urn:xmpp:omemo:2"
NAMES = {LEGACY: "legacy", V2: "omemo:2"}
CODECS = {LEGACY: oldmemo.etree, V2: twomemo.etree}
LIST_NODES = {LEGACY: LEGACY + ".devicelist", V2: V2 + ":devices"}

CLIENT = "{jabber:client}"
DATA = "{jabber:x:data}"
PUBSUB = "http://jabber.org/protocol/pubsub"
EVENT = "{http://jabber.org/protocol/pubsub#event}"
OWNER = "{http://jabber.org/protocol/pubsub#owner}"
SCE = "{urn:xmpp:sce:1}"
RECEIPTS = "{urn:xmpp:receipts}"
CARBONS = "{urn:xmpp:carbons:2}"
FORWARDED = "{urn:xmpp:forward:0}forwarded"
ROOM = "http://jabber.org/protocol/muc"
ROOM_USER = "{http://jabber.org/protocol/muc#user}"
ROOM_ADMIN = "{http://jabber.org/protocol/muc#admin}"
DELAY = "{urn:xmpp:delay}delay"


def emit(event, **fields):
    print(json.dumps({"event": event, **fields}), flush=True)


def bundle_node(version, device):
    """The node and the item that hold a device's bundle."""
    if version == LEGACY:
        return f"{LEGACY}.bundles:{device}", "current"
    return V2 + ":bundles", str(device)


class FileStorage(Storage):
    """Keeps the state as one JSON file, written when save is called."""

    def __init__(self, path):
        super().__init__()
        self._path = path
        try:
            with open(path, encoding="utf-8") as f:
                self._values = json.load(f)
        except FileNotFoundError:
            self._values = {}

    def save(self):
        with open(self._path, "w", encoding="utf-8") as f:
            json.dump(self._values, f)

    async def _load(self, key):
        return Just(self._values[key]) if key in self._values else Nothing()

    async def _store(self, key, value):
        self._values[key] = value

    async def _delete(self, key):
        self._values.pop(key, None)


def manager_for(peer):
    """The session manager class takes its client from the surrounding scope, since
    the library wants static methods."""

    class Manager(omemo.SessionManager):
        @staticmethod
        async def _upload_bundle(bundle):
            node, item = bundle_node(bundle.namespace, bundle.device_id)
            await peer.publish(node, item, CODECS[bundle.namespace].serialize_bundle(bundle),
                               many=bundle.namespace == V2)

        @staticmethod
        async def _download_bundle(namespace, bare_jid, device_id):
            node, item = bundle_node(namespace, device_id)
            try:
                payload = await peer.fetch(bare_jid, node, item if namespace == V2 else None)
                if payload is None:
                    raise BundleNotFound(f"{bare_jid} {device_id}")
                return CODECS[namespace].parse_bundle(payload, bare_jid, device_id)
            except BundleNotFound:
                raise
            except Exception as e:
                raise BundleDownloadFailed(f"{bare_jid} {device_id}: {e!r}") from e

        @staticmethod
        async def _delete_bundle(namespace, device_id):
            raise NotImplementedError

        @staticmethod
        async def _upload_device_list(namespace, device_list):
            await peer.publish(LIST_NODES[namespace], "current",
                               CODECS[namespace].serialize_device_list(device_list))

        @staticmethod
        async def _download_device_list(namespace, bare_jid):
            try:
                return parse_list(namespace, await peer.fetch(bare_jid, LIST_NODES[namespace]))
            except (IqError, IqTimeout) as e:
                raise DeviceListDownloadFailed(repr(e)) from e

        async def _evaluate_custom_trust_level(self, device):
            return omemo.TrustLevel.TRUSTED if device.trust_level_name == "trusted" else omemo.TrustLevel.UNDECIDED

        async def _make_trust_decision(self, undecided, identifier):
            for device in undecided:
                await self.set_trust(device.bare_jid, device.identity_key, "trusted")

        @staticmethod
        async def _send_message(message, bare_jid):
            peer.transmit(bare_jid, message)
            emit("completed", to=bare_jid, version=NAMES[message.namespace])

    return Manager


def parse_list(version, payload):
    # The library's schema refuses a list without devices.
    if payload is None or len(payload) == 0:
        return {}
    return CODECS[version].parse_device_list(payload)


class Peer(ClientXMPP):
    def __init__(self, config):
        super().__init__(config["jid"], config["password"])
        self.ca_certs = config["ca"]
        self.versions = [{"legacy": LEGACY, "omemo:2": V2}[v] for v in config["versions"]]
        self.storage = FileStorage(config["store"])
        self.manager = None
        self.device = None
        self.asked = set()  # accounts whose device lists were fetched
        self.echo = False
        self.rooms = {}  # room → nick → bare JID
        self.work = asyncio.Queue()
        self.worker = None
        for plugin in ("xep_0030", "xep_0060", "xep_0115", "xep_0163", "xep_0199", "xep_0280"):
            self.register_plugin(plugin)
        self.add_event_handler("session_start", lambda _: self.submit(self.begin()))
        self.add_event_handler("failed_all_auth", lambda _: emit("failed", reason="authentication"))
        self.add_event_handler("disconnected", lambda _: emit("disconnected"))
        self.register_handler(Callback("messages", MatchXPath(CLIENT + "message"),
                                       lambda m: self.submit(self.on_message(m.xml))))
        self.register_handler(Callback("presence", MatchXPath(CLIENT + "presence"), self.on_presence))

    # One thing after the other.

    def submit(self, coroutine):
        self.work.put_nowait(coroutine)

    async def run(self):
        while True:
            coroutine = await self.work.get()
            try:
                await coroutine
            except Exception as e:
                emit("failed", reason=repr(e))
            self.storage.save()

    # PEP.

    async def publish(self, node, item, payload, many=False):
        iq = self.make_iq_set()
        pubsub = ElementTree.SubElement(iq.xml, f"{{{PUBSUB}}}pubsub")
        publish = ElementTree.SubElement(pubsub, f"{{{PUBSUB}}}publish", node=node)
        ElementTree.SubElement(publish, f"{{{PUBSUB}}}item", id=item).append(payload)
        options = ElementTree.SubElement(pubsub, f"{{{PUBSUB}}}publish-options")
        options.append(form(PUBSUB + "#publish-options", {"pubsub#access_model": "open"}))
        await iq.send(timeout=30)
        if many:
            # Old ejabberd refuses max_items among the publish options.
            iq = self.make_iq_set()
            configure = ElementTree.SubElement(ElementTree.SubElement(iq.xml, OWNER + "pubsub"), OWNER + "configure", node=node)
            configure.append(form(PUBSUB + "#node_config", {"pubsub#access_model": "open", "pubsub#max_items": "max"}))
            await iq.send(timeout=30)

    async def fetch(self, jid, node, item=None):
        """The payload of the first item, or None if there is none to be had."""
        iq = self.make_iq_get(ito=jid)
        items = ElementTree.SubElement(ElementTree.SubElement(iq.xml, f"{{{PUBSUB}}}pubsub"), f"{{{PUBSUB}}}items", node=node)
        if item is not None:
            ElementTree.SubElement(items, f"{{{PUBSUB}}}item", id=item)
        try:
            answer = await iq.send(timeout=30)
        except IqError as e:
            if e.condition in ("item-not-found", "forbidden", "not-authorized"):
                return None
            raise
        found = answer.xml.find(f"{{{PUBSUB}}}pubsub/{{{PUBSUB}}}items/{{{PUBSUB}}}item/*")
        return found

    # Life.

    async def begin(self):
        for version in self.versions:
            self["xep_0163"].add_interest(LIST_NODES[version])
        await self["xep_0115"].update_caps()
        await self.get_roster()
        await self["xep_0280"].enable()
        backends = [twomemo.Twomemo(self.storage) if v == V2 else oldmemo.Oldmemo(self.storage) for v in self.versions]
        self.manager = await manager_for(self).create(backends, self.storage, self.boundjid.bare, None, "undecided")
        await self.manager.after_history_sync()
        own, _ = await self.manager.get_own_device_information()
        self.device = own.device_id
        # Presence comes last: it brings what was stored for us, to be decrypted.
        self.send_presence()
        emit("ready", device=own.device_id)

    def on_presence(self, stanza):
        room, nick = stanza["from"].bare, stanza["from"].resource
        if room in self.rooms:
            x = stanza.xml.find(ROOM_USER + "x")
            item = x.find(ROOM_USER + "item") if x is not None else None
            if stanza["type"] == "unavailable":
                self.rooms[room].pop(nick, None)
            elif item is not None and item.get("jid"):
                self.rooms[room][nick] = item.get("jid").split("/")[0]
            own = x is not None and any(s.get("code") == "110" for s in x.findall(ROOM_USER + "status"))
            kind = stanza["type"] if stanza["type"] in ("unavailable", "error") else "available"
            emit("occupant", jid=room, nick=nick, type=kind, own=own)
            return
        if stanza["type"] in ("available", "unavailable"):
            emit("presence", jid=stanza["from"].bare, type=stanza["type"])

    # Out.

    def transmit(self, to, message):
        stanza = self.make_message(to, mtype="groupchat" if to in self.rooms else "chat")
        stanza["id"] = secrets.token_hex(8)
        stanza.xml.append(CODECS[message.namespace].serialize_message(message))
        ElementTree.SubElement(stanza.xml, "{urn:xmpp:hints}store")
        ElementTree.SubElement(stanza.xml, "{urn:xmpp:eme:0}encryption", namespace=message.namespace, name="OMEMO")
        stanza.send()
        return stanza["id"]

    async def members(self, room):
        """The owners, admins and members of a room, without ourselves."""
        found = set()
        for affiliation in ("owner", "admin", "member"):
            iq = self.make_iq_get(ito=room)
            query = ElementTree.SubElement(iq.xml, ROOM_ADMIN + "query")
            ElementTree.SubElement(query, ROOM_ADMIN + "item", affiliation=affiliation)
            answer = await iq.send(timeout=30)
            found |= {i.get("jid").split("/")[0] for i in answer.xml.iter(ROOM_ADMIN + "item") if i.get("jid")}
        found.discard(self.boundjid.bare)
        return found

    def envelope(self, content, to=None):
        """Namespaces without prefixes: some clients compare qualified names."""
        now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        padding = secrets.token_hex(secrets.randbelow(100))
        return (f'<envelope xmlns="urn:xmpp:sce:1"><content>{content}</content>'
                f"<rpad>{padding}</rpad><from jid={quoteattr(self.boundjid.bare)}/>"
                f'<time stamp="{now}"/>{"" if to is None else f"<to jid={quoteattr(to)}/>"}</envelope>').encode()

    async def send_body(self, to, body, request=False):
        """Legacy encrypts the body alone: a receipt is asked for in omemo:2 only."""
        content = f'<body xmlns="jabber:client">{escape(body)}</body>'
        if request:
            content += '<request xmlns="urn:xmpp:receipts"/>'
        return await self.send_content(to, body, content)

    async def send_content(self, to, body, content):
        recipients = await self.members(to) if to in self.rooms else {to}
        for account in recipients - self.asked:
            # The first message does not wait for an event to bring the list.
            for version in self.versions:
                await self.manager.refresh_device_list(version, account)
            self.asked.add(account)
        plaintexts = {LEGACY: body.encode(), V2: self.envelope(content, to if to in self.rooms else None)}
        plaintexts = {v: plaintexts[v] for v in self.versions}
        try:
            messages, errors = await self.manager.encrypt(frozenset(recipients), plaintexts, self.versions)
        except NoEligibleDevices as e:
            if to not in self.rooms:
                raise
            # Members that speak another version do not keep it from the others.
            messages, errors = await self.manager.encrypt(frozenset(recipients) - e.bare_jids, plaintexts, self.versions)
        ids = [self.transmit(to, message) for message in messages]
        return {"ids": ids,
                "versions": [NAMES[m.namespace] for m in messages],
                "devices": sorted(k.device_id for m in messages for k, _ in m.keys),
                "errors": [repr(e) for e in errors]}

    # In.

    async def on_message(self, xml):
        sender = xml.get("from", "").split("/")[0] or self.boundjid.bare
        carbon = False
        if xml.get("type") == "groupchat":
            await self.on_room_message(sender, xml)
            return
        for direction in ("sent", "received"):
            inner = xml.find(f"{CARBONS}{direction}/{FORWARDED}/{CLIENT}message")
            if inner is not None and sender == self.boundjid.bare:
                xml, carbon = inner, True
                sender = xml.get("from", "").split("/")[0]
        items = xml.find(f"{EVENT}event/{EVENT}items")
        if items is not None:
            await self.on_items(sender, items)
            return
        if xml.get("type") == "error":
            emit("error", jid=sender, id=xml.get("id"), text=ElementTree.tostring(xml, encoding="unicode"))
            return
        for version in self.versions:
            element = xml.find(f"{{{version}}}encrypted")
            if element is not None and self.is_for_us(version, element):
                await self.on_encrypted(sender, xml, version, element, carbon)
                return
        body = xml.findtext(CLIENT + "body")
        if any(xml.find(f"{{{version}}}encrypted") is not None for version in NAMES):
            emit("foreign", jid=sender, id=xml.get("id"))
        elif body is not None:
            emit("plain", jid=sender, body=body, id=xml.get("id"))

    async def on_room_message(self, room, xml):
        nick = xml.get("from").partition("/")[2]
        account = self.rooms.get(room, {}).get(nick)
        if xml.find(DELAY) is not None or account is None or account == self.boundjid.bare:
            return
        found = [v for v in NAMES if xml.find(f"{{{v}}}encrypted") is not None]
        for version in self.versions:
            element = xml.find(f"{{{version}}}encrypted")
            if element is not None and self.is_for_us(version, element):
                await self.on_encrypted(account, xml, version, element, False, room)
                return
        if found:
            emit("foreign", jid=room, sender=account, id=xml.get("id"))
        elif xml.findtext(CLIENT + "body") is not None:
            emit("plain", jid=room, sender=account, body=xml.findtext(CLIENT + "body"))

    async def on_items(self, sender, items):
        for version in self.versions:
            if items.get("node") == LIST_NODES[version]:
                devices = parse_list(version, items.find(f"{EVENT}item/*"))
                await self.manager.update_device_list(version, sender, devices)
                emit("devices", jid=sender, version=NAMES[version], devices=sorted(devices))

    def is_for_us(self, version, element):
        keys = element.find(f"{{{version}}}header")
        if version == V2:
            keys = next((k for k in keys if k.get("jid") == self.boundjid.bare), None)
        return keys is not None and any(k.get("rid") == str(self.device) for k in keys)

    async def on_encrypted(self, sender, xml, version, element, carbon, room=None):
        try:
            if version == LEGACY:
                message = await oldmemo.etree.parse_message(element, sender, self.boundjid.bare, self.manager)
            else:
                message = twomemo.etree.parse_message(element, sender)
            plaintext, device, _ = await self.manager.decrypt(message)
        except Exception as e:
            emit("undecryptable", jid=sender, id=xml.get("id"), version=NAMES[version], reason=repr(e))
            return
        if plaintext is None:
            emit("empty", jid=sender, version=NAMES[version], device=device.device_id)
            return
        body = plaintext.decode()
        if version == V2:
            content = self.open_envelope(sender, body, room)
            body = content.findtext(CLIENT + "body")
            received = content.find(RECEIPTS + "received")
            if received is not None:
                emit("receipt", jid=sender, id=received.get("id"))
            if content.find(RECEIPTS + "request") is not None and not carbon:
                await self.send_content(sender, "", f'<received xmlns="urn:xmpp:receipts" id={quoteattr(xml.get("id"))}/>')
        if body is None:
            emit("empty", jid=sender, version=NAMES[version], device=device.device_id)
            return
        emit("message", jid=room or sender, sender=sender, id=xml.get("id"), body=body, version=NAMES[version],
             device=device.device_id, carbon=carbon)
        if self.echo and not carbon:
            await self.send_body(room or sender, body)

    def open_envelope(self, sender, text, room=None):
        envelope = ElementTree.fromstring(text)
        content = envelope.find(SCE + "content")
        if envelope.tag != SCE + "envelope" or content is None:
            raise ValueError("not an envelope")
        claimed = envelope.find(SCE + "from")
        if claimed is not None and claimed.get("jid") != sender:
            raise ValueError("the envelope names another sender")
        to = envelope.find(SCE + "to")
        if room is not None and (to is None or to.get("jid") != room):
            raise ValueError("the envelope does not name the room")
        padding = envelope.findtext(SCE + "rpad")
        if padding is None or re.search(r"[<&]", padding):
            raise ValueError("the envelope is not padded")
        return content

    # Commands.

    async def obey(self, command):
        answer = {}
        try:
            action = command["command"]
            if action == "send":
                answer = await self.send_body(command["to"], command["body"], command.get("receipt", False))
            elif action == "plain":
                self.send_message(command["to"], command["body"], mtype="chat")
            elif action == "join":
                self.rooms.setdefault(command["to"], {})
                presence = self.make_presence(pto=command["to"] + "/" + command["nick"])
                ElementTree.SubElement(presence.xml, f"{{{ROOM}}}x")
                presence.send()
            elif action == "nick":
                self.make_presence(pto=command["to"] + "/" + command["nick"]).send()
            elif action == "echo":
                self.echo = command["on"]
            elif action == "devices":
                for version in self.versions:
                    await self.manager.refresh_device_list(version, command["to"])
                answer["list"] = [
                    {"device": d.device_id, "versions": sorted(NAMES[n] for n in d.namespaces if dict(d.active)[n])}
                    for d in await self.manager.get_device_information(command["to"])]
            elif action == "replace":
                for device in await self.manager.get_device_information(command["to"]):
                    failures = await self.manager.replace_sessions(device)
                    if failures:
                        raise RuntimeError(repr(failures))
            else:
                raise ValueError(f"unknown command {action!r}")
        except Exception as e:
            answer["failure"] = repr(e)
        emit("answer", ref=command["ref"], **answer)


def form(kind, values):
    x = ElementTree.Element(DATA + "x", type="submit")
    hidden = ElementTree.SubElement(x, DATA + "field", var="FORM_TYPE", type="hidden")
    ElementTree.SubElement(hidden, DATA + "value").text = kind
    for name, value in values.items():
        field = ElementTree.SubElement(x, DATA + "field", var=name)
        ElementTree.SubElement(field, DATA + "value").text = value
    return x


async def main():
    config = json.loads(sys.argv[1])
    peer = Peer(config)
    peer.worker = asyncio.ensure_future(peer.run())
    host, port = config["addr"].rsplit(":", 1)
    peer.connect((host, int(port)))
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    # The end of the input ends the client.
    while line := await reader.readline():
        peer.submit(peer.obey(json.loads(line)))
    peer.disconnect()
    await peer.disconnected


asyncio.get_event_loop().run_until_complete(main())
