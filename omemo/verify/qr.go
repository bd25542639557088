package verify

import (
	"fmt"
	"strings"

	"rsc.io/qr"
)

// quiet is the width of the white border that readers need, in modules.
const quiet = 4

// Terminal returns a text as a QR code for a terminal: dark modules on light ones,
// two rows of modules in a line of text, whatever the colours of the terminal are.
// It fails if the text does not fit into a code (about 2,900 bytes).
func Terminal(text string) (string, error) {
	code, err := qr.Encode(text, qr.L)
	if err != nil {
		return "", fmt.Errorf("verify: QR code: %w", err)
	}
	dark := func(x, y int) bool { return x >= 0 && y >= 0 && x < code.Size && y < code.Size && code.Black(x, y) }
	var b strings.Builder
	for y := -quiet; y < code.Size+quiet; y += 2 {
		b.WriteString("\x1b[38;5;16;48;5;231m") // black on white
		for x := -quiet; x < code.Size+quiet; x++ {
			switch upper, lower := dark(x, y), dark(x, y+1); {
			case upper && lower:
				b.WriteString("█")
			case upper:
				b.WriteString("▀")
			case lower:
				b.WriteString("▄")
			default:
				b.WriteString(" ")
			}
		}
		b.WriteString("\x1b[0m\n")
	}
	return b.String(), nil
}

// PNG returns a text as a QR code in a PNG image, 8 pixels a module. It fails as
// Terminal does.
func PNG(text string) ([]byte, error) {
	code, err := qr.Encode(text, qr.L)
	if err != nil {
		return nil, fmt.Errorf("verify: QR code: %w", err)
	}
	return code.PNG(), nil
}
