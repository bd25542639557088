package logscan

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const (
	// window is how many bytes in a row count as found: nobody guesses them.
	window = 12
	// stride is how far the beginnings of the windows of a secret lie apart:
	// of 15 bytes of one in a row, a window is among them.
	stride = 4
	// variety is how many different values a window has at least. Others are
	// counters and zeros.
	variety = 6
)

var (
	digits   = regexp.MustCompile(`[0-9a-fA-F]{24,}`)
	base     = regexp.MustCompile(`[A-Za-z0-9+/_-]{16,}`)
	decimals = regexp.MustCompile(`\d{1,3}(?:,? \d{1,3}){11,}`)
	bytesOf  = regexp.MustCompile(`0x[0-9a-f]{1,2}(?:, 0x[0-9a-f]{1,2}){11,}`)
)

// Leaks returns what was logged and should not have been.
func (s *Scan) Leaks() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	windows := make(map[[window]byte]string)
	for line := range s.lines {
		for _, form := range forms(line) {
			for i := 0; i+window <= len(form); i++ {
				windows[[window]byte(form[i:i+window])] = line
			}
		}
	}
	var found []string
	report := func(what, line string) {
		if text := fmt.Sprintf("%s in %.300q", what, line); !slices.Contains(found, text) && len(found) < 100 {
			found = append(found, text)
		}
	}
	for i := 0; i+window <= len(s.secrets); i += stride {
		w := [window]byte(s.secrets[i : i+window])
		if line, ok := windows[w]; ok && !shown(w) {
			report("a key", line)
		}
	}
	for text := range s.texts {
		if line, ok := said(windows, text); ok {
			report(fmt.Sprintf("the text %.100q", text), line)
		}
	}
	return found
}

// said returns the line that holds a text: all of it or, where its words begin or
// end, a part. Between them may be an address or the name of a namespace.
func said(windows map[[window]byte]string, text string) (line string, ok bool) {
	whole := true
	for i := 0; i+window <= len(text); i++ {
		w := [window]byte([]byte(text[i : i+window]))
		at, ok := windows[w]
		if ok && bytes.ContainsRune(w[:], ' ') {
			return at, true
		}
		line, whole = at, whole && ok
	}
	return line, whole
}

// shown reports whether a part of a record is no secret: addresses stand in
// records as they are, and so do counters. Random bytes do not look like that.
func shown(w [window]byte) bool {
	printable := true
	var values []byte
	for _, b := range w {
		printable = printable && b >= ' ' && b < 0x7f
		if !slices.Contains(values, b) {
			values = append(values, b)
		}
	}
	return printable || len(values) < variety
}

// forms returns a line, and all bytes that it may hold in another form.
func forms(line string) [][]byte {
	all := [][]byte{[]byte(line)}
	if raw, err := strconv.Unquote(`"` + strings.ReplaceAll(line, `"`, ``) + `"`); err == nil {
		all = append(all, []byte(raw))
	}
	for _, token := range digits.FindAllString(line, -1) {
		for shift := range 2 {
			token := token[shift:]
			if b, err := hex.DecodeString(token[:len(token)&^1]); err == nil {
				all = append(all, b)
			}
		}
	}
	for _, token := range base.FindAllString(line, -1) {
		token = strings.NewReplacer("-", "+", "_", "/").Replace(token)
		for shift := range 4 {
			token := token[min(shift, len(token)):]
			if b, err := base64.RawStdEncoding.DecodeString(token[:len(token)&^3]); err == nil {
				all = append(all, b)
			}
		}
	}
	for _, tokens := range [][]string{decimals.FindAllString(line, -1), bytesOf.FindAllString(line, -1)} {
		for _, token := range tokens {
			var b []byte
			for _, n := range strings.Fields(strings.ReplaceAll(token, ",", " ")) {
				if x, err := strconv.ParseUint(n, 0, 8); err == nil {
					b = append(b, byte(x))
				}
			}
			all = append(all, b)
		}
	}
	return all
}
