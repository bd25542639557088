package wycheproof

import (
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"testing"

	vectors "github.com/c2sp/wycheproof"
)

// octets are written in hexadecimal digits.
type octets []byte

func (o *octets) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	decoded, err := hex.DecodeString(s)
	*o = decoded
	return err
}

// vector holds the fields of all kinds of tests.
type vector struct {
	ID      int      `json:"tcId"`
	Comment string   `json:"comment"`
	Flags   []string `json:"flags"`
	Result  string   `json:"result"` // valid, invalid, acceptable

	Key, IV, AAD, Msg, CT, Tag, Sig octets
	Public, Private, Shared         octets
	IKM, Salt, Info, OKM            octets
	Size                            int
}

func (v *vector) has(flag string) bool {
	for _, f := range v.Flags {
		if f == flag {
			return true
		}
	}
	return false
}

type group struct {
	Tests   []vector `json:"tests"`
	KeySize int      `json:"keySize"`
	IVSize  int      `json:"ivSize"`
	TagSize int      `json:"tagSize"`

	PublicKey struct {
		PK octets `json:"pk"`
	} `json:"publicKey"`
}

// read returns the groups of a file.
func read(t *testing.T, name string) []group {
	t.Helper()
	b, err := fs.ReadFile(vectors.TestVectors, name)
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		TestGroups []group `json:"testGroups"`
	}
	if err := json.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	return file.TestGroups
}

// tally counts what was tried, and checks that it is not less than there was when
// the test was written.
type tally struct{ valid, invalid, zero int }

func (n *tally) check(t *testing.T, valid, invalid int) {
	t.Helper()
	t.Logf("%d valid, %d invalid", n.valid, n.invalid)
	if n.valid < valid || n.invalid < invalid {
		t.Errorf("fewer vectors than there were: %d valid of %d, %d invalid of %d", n.valid, valid, n.invalid, invalid)
	}
}

// judge compares what came of a vector with what should.
func (n *tally) judge(t *testing.T, v *vector, accepted bool) {
	t.Helper()
	switch {
	case v.Result == "invalid":
		n.invalid++
		if accepted {
			t.Errorf("%d (%s): accepted", v.ID, v.Comment)
		}
	case v.Result == "valid":
		n.valid++
		if !accepted {
			t.Errorf("%d (%s): refused", v.ID, v.Comment)
		}
	}
}
