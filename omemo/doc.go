// Package omemo holds OMEMO devices, sessions and trust (XEP-0384), in both
// versions in use, without any XML or network.
//
// Five nouns carry it:
//
//   - A [Device] is a device of an account in one version; its identity key, as a
//     [Fingerprint], is the same in both.
//   - A [Bundle] holds a device's public keys, enough to begin a session with it.
//   - A [Session] is held with one device in one version. It was begun by us
//     (active) or by the other side (passive), and repeats its [KeyExchange] until
//     it is confirmed. Sessions are values: using one yields the next.
//   - A [Store] keeps everything. It reads in batches and writes in one way:
//     Commit takes [Changes], all or nothing.
//   - A [Manager] is the account itself. It does one thing after another.
//
// And a message has two paths. [Manager.Encrypt] chooses the devices of the
// recipients and the version that serves each, seals the body once per version
// and its key once per device, has the stanza made (Render), commits, and only
// then returns what may leave. [Manager.Decrypt] finds the session or builds it
// from a key exchange, opens a copy, has the content checked (Verify), and
// commits session, pre key, identity and message at once. A message that fails
// changes nothing.
//
// What is owed afterwards (answers, a new bundle) is written down in the same
// commit and done by whoever has a network: see [Manager.Upkeep].
//
// A sender can give each recipient another text: nothing compares what different
// devices have read. And whoever holds the keys of a legacy message can put its
// text into another chat of the same two devices.
//
// # Trust
//
// Trust belongs to an identity key and the account that shows it, and holds for
// both versions. Content is encrypted to keys that are trusted blindly or verified;
// what comes from any key is decrypted and marked ([Opened].Trust), and it is the
// caller who refuses distrusted ones. A key is in one of these states:
//
//	                first seen
//	                    │ the policy says
//	     ┌──────────────┼────────────────┐
//	     ▼              ▼                ▼
//	undecided ─────▶ trusted blindly   verified or distrusted
//	     │  the policy  │              (an allow-list)
//	     └──────┬───────┘
//	            │ a person, or a verified device (XEP-0450)
//	     ┌──────┴───────┐
//	     ▼              ▼
//	 verified ◀────▶ distrusted
//	        whoever decides later
//
// A person can make any of them undecided again: then the policy is not asked.
//
// A device that presents another key than before is changed: the known key stays
// and is used, the other one stands beside it ([Device].Conflict, [IdentityChanged])
// and its messages are refused, until [Manager.AcceptIdentity] takes it over; it
// then begins as any key that is first seen. A key that another account has shown
// first is undecided until a person decides ([IdentityShared]).
//
// What was decided comes before what the policy says. Blind trust is no decision:
// policies are asked about it again. [BlindBeforeVerification] is the default;
// [Blind], [TOAKAFA], [Manual], [ManualOwn] and [AllowList] are the others, and any
// function can be one. [Manager.Announce] tells other devices of decisions, and
// [Delivery].Statements is how what they say comes in: from our own devices about
// every key, from a contact's about that contact's; the newest statement counts.
// Statements of devices that are not verified wait until they are, 1,024 of our own
// account's other devices and 64 of a contact's.
//
// Do not use this package where the whole of a conversation must be hidden: who
// writes to whom, when and how much is visible to the servers, and in the legacy
// version everything but the text of the body.
package omemo
