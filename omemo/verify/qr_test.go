package verify_test

import (
	"bytes"
	"image/png"
	"strings"
	"testing"

	"example.org/omellium/omemo/verify"
)

// TestTheTerminalShowsTheSameAsTheImage compares the modules of both forms.
func TestTheTerminalShowsTheSameAsTheImage(t *testing.T) {
	const text = "xmpp:romeo@example.net?omemo-sid-123=abababababababababababababababababababababababababababababababab"
	shown, err := verify.Terminal(text)
	if err != nil {
		t.Fatal(err)
	}
	file, err := verify.PNG(text)
	if err != nil {
		t.Fatal(err)
	}
	image, err := png.Decode(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	const scale = 8
	size := image.Bounds().Dx() / scale
	lines := strings.Split(strings.TrimSuffix(shown, "\n"), "\n")
	if len(lines) != (size+1)/2 {
		t.Fatalf("%d lines for %d modules", len(lines), size)
	}
	for y := range size {
		line := []rune(strings.NewReplacer("\x1b[38;5;16;48;5;231m", "", "\x1b[0m", "").Replace(lines[y/2]))
		if len(line) != size {
			t.Fatalf("line %d has %d modules, want %d", y/2, len(line), size)
		}
		for x := range size {
			r, _, _, _ := image.At(x*scale+scale/2, y*scale+scale/2).RGBA()
			dark := strings.ContainsRune("█▀", line[x])
			if y%2 == 1 {
				dark = strings.ContainsRune("█▄", line[x])
			}
			if dark != (r < 0x8000) {
				t.Fatalf("module %d, %d differs", x, y)
			}
		}
	}
}

func TestTextsThatAreTooLong(t *testing.T) {
	text := strings.Repeat("x", 4000)
	if _, err := verify.Terminal(text); err == nil {
		t.Error("no error")
	}
	if _, err := verify.PNG(text); err == nil {
		t.Error("no error")
	}
}
