package omemo_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"example.org/omellium/bundle"
	"example.org/omellium/devicelist"
	"example.org/omellium/omemo"
	"example.org/omellium/omemo/internal/recorded"
	"example.org/omellium/stanza"
)

// vectorDir holds recorded conversations with other implementations. It can be
// replaced: the verdicts hold by the names of files and variants.
func vectorDir() string {
	if dir := recorded.Dir(); dir != "" {
		return dir
	}
	return filepath.Join("testdata", "vectors")
}

// octets are bytes in hexadecimal digits.
type octets []byte

func (o *octets) UnmarshalJSON(b []byte) error {
	var s *string
	if err := json.Unmarshal(b, &s); err != nil || s == nil {
		return err
	}
	value, err := hex.DecodeString(*s)
	*o = value
	return err
}

func (o octets) key() (k [32]byte) {
	copy(k[:], o)
	return k
}

// recording is a file of any of the formats that are run here.
type recording struct {
	Format    string
	Namespace string
	Parties   map[string]*recordedParty
	Steps     []recordedStep    // conversations
	Items     []recordedVariant // variants
	Bundles   []struct {        // bundles
		Device recordedParty
		Checks []struct {
			Name   string
			XML    string
			Python any
		}
	}
}

type recordedParty struct {
	JID      string
	DeviceID uint32 `json:"device_id"`
	Identity struct {
		Seed, Priv octets
		Curve      octets `json:"curve25519_pub"`
	}
	SignedPreKeys []struct {
		ID      uint32
		Priv    octets
		Current bool
	} `json:"signed_pre_keys"`
	PreKeys []struct {
		ID   uint32
		Priv octets
	} `json:"pre_keys"`
	BundleXML string `json:"bundle_xml"`
}

type recordedRandomness struct {
	Ephemeral octets   `json:"ephemeral_priv"`
	Ratchets  []octets `json:"ratchet_privs"`
}

type recordedStep struct {
	I             int
	Op, By, Msg   string
	Kind          string
	XML           string
	Plaintext     *octets `json:"plaintext_hex"`
	NewSession    bool    `json:"new_session"`
	Kex           bool
	KeyBytes      octets `json:"key_bytes_hex"`
	N             uint32
	ContentKey    octets `json:"content_key"`
	ContentTag    octets `json:"content_tag"`
	Material      octets `json:"key_material_hex"`
	Payload       octets `json:"payload_hex"`
	IV            octets `json:"iv_hex"`
	RNG           *recordedRandomness
	PreKeyID      uint32 `json:"kex_pre_key_id"`
	SignedID      uint32 `json:"kex_signed_pre_key_id"`
	Expect        string
	Reason        string
	PreKeyDeleted *uint32          `json:"pre_key_deleted"`
	SessionBuilt  *bool            `json:"session_built"`
	SessionAfter  *recordedSession `json:"session_after"`
	SignedPreKeys []struct {
		ID      uint32
		Priv    octets
		Current bool
	} `json:"signed_pre_keys"`
	BundleXML string `json:"bundle_xml"`
}

type recordedVariant struct {
	Name      string
	XML       string
	ReplyXML  string  `json:"reply_xml"`
	Plaintext *octets `json:"plaintext_hex"`
	Python    any     `json:"python_accepts"`
	RNG       recordedRandomness
}

// mayDecrypt reports whether another library may do otherwise than python did.
func (s *recordedStep) mayDecrypt() bool { return strings.Contains(s.Reason, "may ") }

// verdict is what we do with a variant where that is not what python does.
type verdict struct {
	Accept bool
	Reason string
}

func TestVectors(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join("testdata", "verdicts.json"))
	if err != nil {
		t.Fatal(err)
	}
	var verdicts map[string]map[string]verdict
	if err := json.Unmarshal(raw, &verdicts); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(vectorDir(), "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no vectors in %s: %v", vectorDir(), err)
	}
	for _, file := range files {
		name := filepath.Base(file)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var r recording
			if err := json.Unmarshal(raw, &r); err != nil {
				var head struct{ Format string }
				_ = json.Unmarshal(raw, &head)
				if r.Format = head.Format; len(elsewhere[r.Format]) == 0 {
					t.Fatal(err)
				}
			}
			switch {
			case r.Format == "omemo-conversation-v1", r.Format == "omemo-keymaterial-conversation-v1":
				newReplay(t, &r).conversation()
			case r.Format == "omemo-variants-v1":
				newReplay(t, &r).variants(verdicts[name])
			case r.Format == "omemo-bundle-v1":
				bundles(t, &r, verdicts[name])
			case r.Format == "omemo-label-v1":
				labels(t, raw)
			case len(elsewhere[r.Format]) > 0:
				if !slices.Contains(elsewhere[r.Format], name) {
					t.Fatalf("files of the format %s are %v", r.Format, elsewhere[r.Format])
				}
			default:
				t.Fatalf("unknown format %q", r.Format)
			}
		})
	}
}

// elsewhere are the formats that the tests of internal packages run, with the
// names of the files that they look for in the same directory.
var elsewhere = map[string][]string{
	"omemo-xeddsa-v1": {"xeddsa.json"},
	"omemo-x3dh-v1":   {"oldmemo_x3dh.json", "twomemo_x3dh.json"},
	"omemo-kdf-v1":    {"oldmemo_kdf.json", "twomemo_kdf.json"},
}

func versionOf(t *testing.T, namespace string) omemo.Version {
	for _, v := range omemo.Versions() {
		if v.Namespace() == namespace {
			return v
		}
	}
	t.Fatalf("unknown namespace %q", namespace)
	return 0
}

func parseXML(s string) (*stanza.Element, error) {
	return stanza.ParseElement([]byte(s), stanza.DefaultLimits)
}

func parseBundle(s string, owner omemo.Address) (*omemo.Bundle, error) {
	e, err := parseXML(s)
	if err != nil {
		return nil, err
	}
	b, err := bundle.Parse(e, owner)
	if err != nil {
		return nil, err
	}
	return &b, b.Verify()
}

// bundles compares what we say about bundles with what python says.
func bundles(t *testing.T, r *recording, verdicts map[string]verdict) {
	for _, recorded := range r.Bundles {
		owner := omemo.Address{JID: recorded.Device.JID, Device: omemo.DeviceID(recorded.Device.DeviceID)}
		for _, check := range recorded.Checks {
			want := check.Python == true
			if v, ok := verdicts[check.Name]; ok {
				want = v.Accept
			}
			b, err := parseBundle(check.XML, owner)
			if (err == nil) != want {
				t.Errorf("%v, %s: %v, want accepted %t", owner, check.Name, err, want)
				continue
			}
			if err != nil {
				continue
			}
			f, err := b.Fingerprint()
			if err != nil || f != omemo.Fingerprint(recorded.Device.Identity.Curve.key()) {
				t.Errorf("%v, %s: fingerprint %v, %v", owner, check.Name, f, err)
			}
		}
	}
}

// labels compares what we say about signed labels with what python says.
func labels(t *testing.T, raw []byte) {
	var file struct {
		Cases []struct {
			Label     string
			Identity  octets `json:"identity_ed25519"`
			Signature []byte `json:"labelsig_b64"`
			Valid     bool
		}
		XML string `json:"device_list_xml"`
	}
	if err := json.Unmarshal(raw, &file); err != nil || len(file.Cases) == 0 {
		t.Fatalf("%d labels, %v", len(file.Cases), err)
	}
	listed := false
	e, err := parseXML(file.XML)
	if err != nil {
		t.Fatal(err)
	}
	list, err := devicelist.Parse(e)
	if err != nil || len(list.Devices) == 0 {
		t.Fatalf("%+v, %v", list, err)
	}
	for i, c := range file.Cases {
		if len(c.Identity) != 32 || len(c.Signature) != 64 {
			t.Fatalf("label %d: identity of %d bytes, signature of %d", i, len(c.Identity), len(c.Signature))
		}
		if got := ed25519.Verify(ed25519.PublicKey(c.Identity), []byte(c.Label), c.Signature); got != c.Valid {
			t.Errorf("label %d: signature %t, want %t", i, got, c.Valid)
		}
		want := ""
		if c.Valid {
			want = c.Label
		}
		d := omemo.Device{Peer: omemo.Peer{Version: omemo.V2}, Identity: c.Identity.key(), Label: c.Label, LabelSignature: [64]byte(c.Signature)}
		if got := d.VerifiedLabel(); got != want {
			t.Errorf("label %d: %q, want %q", i, got, want)
		}
		first := list.Devices[0]
		listed = listed || c.Valid && first.Label == c.Label && bytes.Equal(first.LabelSig, c.Signature)
	}
	if !listed {
		t.Errorf("the label on the list is none of them: %+v", list.Devices[0])
	}
}
