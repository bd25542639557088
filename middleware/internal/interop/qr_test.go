//go:build live

package interop

import (
	"bytes"
	"image"
	"image/color"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"mellium.im/xmpp/jid"

	"example.org/omellium/omemo"
	"example.org/omellium/omemo/verify"
)

// TestAnIndependentDecoderReadsTheURI has zbar read the QR code of URIs, from the
// image and from what a terminal shows.
func TestAnIndependentDecoderReadsTheURI(t *testing.T) {
	if _, err := exec.LookPath("zbarimg"); err != nil {
		t.Fatal("zbarimg is missing: Debian's zbar-tools")
	}
	for _, n := range []int{1, 2, 10} {
		u := verify.URI{Account: jid.MustParse("jürgen@localhost")}
		for i := range n {
			u.Devices = append(u.Devices, verify.Device{ID: omemo.DeviceID(1<<31 - 1 - i), Fingerprint: omemo.Fingerprint{byte(i), 1, 2, 31: 0xfe}})
		}
		file, err := verify.PNG(u.String())
		if err != nil {
			t.Fatal(err)
		}
		shown, err := verify.Terminal(u.String())
		if err != nil {
			t.Fatal(err)
		}
		for name, picture := range map[string][]byte{"png": file, "terminal": drawn(t, shown)} {
			path := filepath.Join(t.TempDir(), "code.png")
			if err := os.WriteFile(path, picture, 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := exec.Command("zbarimg", "--raw", "-q", path).Output()
			if err != nil {
				t.Fatalf("%s of %d keys: %v", name, n, err)
			}
			text := strings.TrimSuffix(string(out), "\n")
			if text != u.String() {
				t.Errorf("%s: read %q, want %q", name, text, u)
			}
			if back, err := verify.ParseURI(text); err != nil || len(back.Devices) != n {
				t.Errorf("%s: %+v, %v", name, back, err)
			}
		}
	}
}

// drawn paints what a terminal shows, two squares for each character.
func drawn(t *testing.T, shown string) []byte {
	t.Helper()
	const scale = 6
	shown = strings.NewReplacer("\x1b[38;5;16;48;5;231m", "", "\x1b[0m", "").Replace(shown)
	lines := strings.Split(strings.TrimSuffix(shown, "\n"), "\n")
	picture := image.NewGray(image.Rect(0, 0, len([]rune(lines[0]))*scale, 2*len(lines)*scale))
	for y := range picture.Rect.Dy() {
		for x := range picture.Rect.Dx() {
			dark := "█▀"
			if y/scale%2 == 1 {
				dark = "█▄"
			}
			if !strings.ContainsRune(dark, []rune(lines[y/scale/2])[x/scale]) {
				picture.SetGray(x, y, color.Gray{Y: 255})
			}
		}
	}
	var b bytes.Buffer
	if err := png.Encode(&b, picture); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
