package media

import (
	"path"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxSafeName is the longest name that SafeName returns, in bytes: file systems
// allow 255, and something may be added.
const maxSafeName = 200

// SafeName makes the name of a file out of one that somebody else gave it. It holds
// no directory, nothing that shows it otherwise than it is (control characters, marks
// of direction, invisible characters), no character and no word that a common
// operating system takes for something else, and no leading dot. It is never empty,
// and not longer than 200 bytes.
func SafeName(name string) string {
	name = name[strings.LastIndexAny(name, `/\`)+1:]
	name = strings.Map(func(r rune) rune {
		switch {
		case strings.ContainsRune(`<>:"|?*`, r), r == utf8.RuneError:
			return '_'
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsGraphic(r), unicode.Is(unicode.Other_Default_Ignorable_Code_Point, r):
			return -1
		}
		return r
	}, strings.ToValidUTF8(name, "_"))
	name = strings.Trim(name, ". ")
	base, end := strings.TrimSuffix(name, path.Ext(name)), path.Ext(name)
	if len(end) > 20 {
		base, end = name, ""
	}
	for len(base)+len(end) > maxSafeName {
		_, size := utf8.DecodeLastRuneInString(base)
		base = base[:len(base)-size]
	}
	if name = strings.Trim(base+end, ". "); name == "" {
		return "file"
	}
	word, _, _ := strings.Cut(name, ".")
	if isDevice(strings.ToUpper(strings.TrimRight(word, " "))) {
		return "_" + name
	}
	return name
}

// isDevice reports whether Windows takes a name for a device, whatever its ending.
func isDevice(s string) bool {
	switch s {
	case "CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$":
		return true
	}
	rest, ok := strings.CutPrefix(s, "COM")
	if !ok {
		rest, ok = strings.CutPrefix(s, "LPT")
	}
	return ok && utf8.RuneCountInString(rest) == 1 && strings.Contains("0123456789¹²³", rest)
}
