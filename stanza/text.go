package stanza

// ValidText reports whether a text can stand in XML: UTF-8, and only characters
// that XML allows.
func ValidText(s string) bool { return isText(s) }
