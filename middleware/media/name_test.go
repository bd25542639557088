package media

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestSafeName(t *testing.T) {
	for name, want := range map[string]string{
		"photo.jpg": "photo.jpg", "très cool.jpg": "très cool.jpg", "写真.jpg": "写真.jpg", "a.tar.gz": "a.tar.gz",
		"": "file", ".": "file", "..": "file", "...": "file", "/": "file", `\`: "file", " ": "file", "\x00": "file", "\u202e": "file",
		"../../etc/passwd": "passwd", "/etc/passwd": "passwd", `..\..\win.ini`: "win.ini", `C:\autoexec.bat`: "autoexec.bat",
		"/etc/": "file", "a/..": "file", "..\x00/x": "x",
		".bashrc": "bashrc", ".ssh/authorized_keys": "authorized_keys", "...hidden": "hidden", " x ": "x", "x.": "x", "x. .": "x", "x .": "x",
		"C:evil":           "C_evil",
		`a<b>c:d"e|f?g*h`:  "a_b_c_d_e_f_g_h",
		"a\x00b\nc\td":     "ab c d",
		"\u202egpj.exe":    "gpj.exe",
		"a\u200bb\u2066c":  "abc",
		"a\u00a0b\u2003c":  "a b c",
		"a\xffb":           "a_b",
		"CON":              "_CON",
		"con.txt":          "_con.txt",
		"nul .tar":         "_nul .tar",
		"COM1":             "_COM1",
		"lpt9.x":           "_lpt9.x",
		"COM10":            "COM10",
		"common":           "common",
		"file.sh":          "file.sh",
		"-rf":              "-rf",
		"a\u2028b\u2029c":  "a b c",
		"\ufeffx":          "x",
		"photo.jpg\u202e.": "photo.jpg",
	} {
		if got := SafeName(name); got != want {
			t.Errorf("%q became %q, want %q", name, got, want)
		}
		if again := SafeName(SafeName(name)); again != SafeName(name) {
			t.Errorf("%q became %q at last", name, again)
		}
	}
	for _, long := range []string{
		strings.Repeat("x", 5000), strings.Repeat("ü", 300) + ".jpeg", strings.Repeat("x", 500) + "." + strings.Repeat("y", 500),
		"x." + strings.Repeat("y", 500), strings.Repeat(". ", 400) + "x", strings.Repeat("x ", 400),
	} {
		got := SafeName(long)
		if len(got) > maxSafeName || !utf8.ValidString(got) || got == "" {
			t.Errorf("%d bytes: %q", len(got), got)
		}
		if strings.HasSuffix(long, ".jpeg") && !strings.HasSuffix(got, "ü.jpeg") {
			t.Errorf("the ending is gone: %q", got)
		}
	}
}
