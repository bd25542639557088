package omemo_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "example.org/omellium"

// imports are the import rules: what packages of this module a package may
// import, by the longest path that begins its own. Below "/..." everything is
// allowed; what is not named at all is not allowed.
var imports = map[string][]string{
	"omemo": {
		"omemo/internal/curve", "omemo/internal/x3dh", "omemo/internal/ratchet", "omemo/internal/wire", "omemo/internal/payload",
	},
	"omemo/internal/curve":   {},
	"omemo/internal/payload": {"omemo/internal/ratchet"},
	"omemo/internal/x3dh":    {"omemo/internal/curve"},
	"omemo/internal/ratchet": {"omemo/internal/curve"},
	"omemo/internal/wire":    {"omemo/internal/curve", "omemo/internal/ratchet"},
	// Only tests use it.
	"omemo/internal/recorded": {},
	"omemo/memstore":          {"omemo"},
	"omemo/sqlstore":          {"omemo", "omemo/sqlstore", "omemo/sqlstore/..."},
	"omemo/storetest":         {"omemo"},
	"omemo/verify":            {"omemo"},
	"stanza":                  {},
	"stanza/pep":              {"stanza"},
	"devicelist":              {"omemo", "stanza", "stanza/pep"},
	"bundle":                  {"omemo", "stanza", "stanza/pep"},
	"middleware":              {"omemo", "omemo/memstore", "omemo/verify", "stanza", "stanza/pep", "devicelist", "bundle", "middleware/..."},
	"middleware/media":        {"stanza", "stanza/pep"},
	// What only tests use stands above the middleware.
	"middleware/internal/logscan": {"omemo", "middleware"},
	"examples":                    {"omemo/...", "omemo", "stanza/...", "stanza", "devicelist", "bundle", "middleware", "middleware/media", "middleware/xmpptest", "examples/..."},
}

// foreign says what a package may import from elsewhere, if that is restricted:
// nothing that begins with one of these, unless it is excepted.
var foreign = map[string]struct{ never, except []string }{
	"omemo":                  {never: []string{"encoding/xml", "net", "mellium.im/", "database/sql"}},
	"omemo/internal/curve":   {never: []string{"encoding/xml", "net", "mellium.im/", "database/sql", "crypto/rand"}},
	"omemo/internal/x3dh":    {never: []string{"encoding/xml", "net", "mellium.im/", "database/sql", "crypto/rand"}},
	"omemo/internal/ratchet": {never: []string{"encoding/xml", "net", "mellium.im/", "database/sql", "crypto/rand"}},
	"omemo/internal/wire":    {never: []string{"encoding/xml", "net", "mellium.im/", "database/sql", "crypto/rand"}},
	"omemo/internal/payload": {never: []string{"encoding/xml", "net", "mellium.im/", "database/sql", "crypto/rand"}},
	"omemo/memstore":         {never: []string{"encoding/xml", "net", "mellium.im/", "database/sql"}},
	"omemo/sqlstore":         {never: []string{"encoding/xml", "mellium.im/"}},
	"omemo/storetest":        {never: []string{"encoding/xml", "net", "mellium.im/"}},
	"omemo/verify":           {never: []string{"encoding/xml", "net/http", "database/sql"}},
	"stanza": {
		never: []string{"net", "mellium.im/", "crypto/"},
		except: []string{
			"mellium.im/xmpp/stanza", "mellium.im/xmpp/jid", "mellium.im/xmpp/form", "mellium.im/xmpp/oob", "mellium.im/xmlstream", "crypto/rand",
		},
	},
}

// rule returns the entry for the longest path that begins the package's.
func ruleOf[T any](rules map[string]T, pkg string) (T, bool) {
	for p := pkg; p != "."; p = path.Dir(p) {
		if r, ok := rules[p]; ok {
			return r, true
		}
	}
	var none T
	return none, false
}

func TestImportRules(t *testing.T) {
	root := filepath.Join("..")
	files := 0
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || exists(filepath.Join(name, "go.mod"))) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		rel, err := filepath.Rel(root, filepath.Dir(name))
		if err != nil {
			return err
		}
		files++
		checkImports(t, name, filepath.ToSlash(rel))
		return nil
	})
	if err != nil || files < 20 {
		t.Fatalf("%d files, %v", files, err)
	}
}

func exists(name string) bool {
	match, err := filepath.Glob(name)
	return err == nil && len(match) > 0
}

func checkImports(t *testing.T, file, pkg string) {
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
	if err != nil {
		t.Error(err)
		return
	}
	allowed, ok := ruleOf(imports, pkg)
	if !ok {
		t.Errorf("%s: no import rule for package %s", file, pkg)
	}
	for _, spec := range parsed.Imports {
		name, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Error(err)
			continue
		}
		if own, ok := strings.CutPrefix(name, module+"/"); ok {
			if !mayImport(allowed, own) {
				t.Errorf("%s: package %s must not import %s", file, pkg, own)
			}
			continue
		}
		outside, _ := ruleOf(foreign, pkg)
		if pkg == "stanza/pep" {
			continue // it talks to the network through mellium
		}
		if begins(outside.never, name) && !begins(outside.except, name) {
			t.Errorf("%s: package %s must not import %s", file, pkg, name)
		}
	}
}

func mayImport(allowed []string, pkg string) bool {
	for _, a := range allowed {
		if below, ok := strings.CutSuffix(a, "/..."); a == pkg || ok && strings.HasPrefix(pkg, below+"/") {
			return true
		}
	}
	return false
}

func begins(paths []string, name string) bool {
	for _, p := range paths {
		if name == p || strings.HasPrefix(name, strings.TrimSuffix(p, "/")+"/") {
			return true
		}
	}
	return false
}

// TestTheCorePullsInNoXMLAndNoNetwork looks at everything that a program which
// imports the core is built from.
func TestTheCorePullsInNoXMLAndNoNetwork(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", module+"/omemo").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, pkg := range strings.Fields(string(out)) {
		if pkg == "encoding/xml" || pkg == "database/sql" || begins([]string{"net", "mellium.im"}, pkg) {
			t.Errorf("the core pulls in %s", pkg)
		}
		if strings.HasPrefix(pkg, module) && !begins([]string{module + "/omemo"}, pkg) {
			t.Errorf("the core pulls in %s", pkg)
		}
	}
}
