package xmpptest

import (
	"encoding/xml"
	"strings"
	"testing"

	"mellium.im/xmpp/disco"
	"mellium.im/xmpp/disco/items"
	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/upload"
)

func TestUploads(t *testing.T) {
	srv := newServer(t)
	if err := srv.AddUploads("upload.example.net", "https://files.example.net/store", 1000); err != nil {
		t.Fatal(err)
	}
	for _, bad := range [][2]string{{"romeo@example.net", "https://x"}, {"upload.example.net", "https://x:y"}, {"", ""}} {
		if srv.AddUploads(bad[0], bad[1], 0) == nil {
			t.Errorf("%q was added", bad)
		}
	}
	session, err := srv.Client(waiting(t), "romeo@example.net/orchard", "pw-romeo")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = session.Serve(nil) }()
	service := jid.MustParse("upload.example.net")
	found := disco.FetchItems(waiting(t), items.Item{JID: session.LocalAddr().Domain()}, session)
	if !found.Next() || !found.Item().JID.Equal(service) || found.Next() {
		t.Errorf("items: %v", found.Err())
	}
	if err := found.Close(); err != nil {
		t.Fatal(err)
	}
	info, err := disco.GetInfo(waiting(t), "", service, session)
	if err != nil || len(info.Form) != 1 {
		t.Fatalf("%+v, %v", info, err)
	}
	if size, ok := info.Form[0].GetString("max-file-size"); !ok || size != "1000" {
		t.Errorf("size %q", size)
	}
	slot, err := upload.GetSlot(waiting(t), upload.File{Name: "a b.jpg", Size: 1000}, service, session)
	if err != nil {
		t.Fatal(err)
	}
	link := slot.PutURL.String()
	if !strings.HasPrefix(link, "https://files.example.net/store/") || !strings.HasSuffix(link, "/a%20b.jpg") || slot.GetURL.String() != link ||
		!strings.HasPrefix(slot.Header.Get("Authorization"), "Bearer ") {
		t.Errorf("slot %+v", slot)
	}
	for _, f := range []upload.File{{Name: "x", Size: 1001}, {Name: "x"}, {Size: 1}} {
		if _, err := upload.GetSlot(waiting(t), f, service, session); err == nil {
			b, _ := xml.Marshal(f)
			t.Errorf("a slot for %s", b)
		}
	}
}
