package devicelist

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"unicode/utf8"

	"example.org/omellium/omemo"
	"example.org/omellium/stanza"
)

// Errors of reading a list.
var (
	ErrMalformed = errors.New("devicelist: malformed")
	// ErrTooLarge: the list exceeds MaxDevices or MaxBytes.
	ErrTooLarge = errors.New("devicelist: too large")
)

// Device is an entry of a list.
type Device struct {
	ID omemo.DeviceID
	// Label is a name that the user gave the device, omemo:2 only. It counts
	// only if LabelSig, 64 bytes, is an Ed25519 signature of it by the device's
	// identity key, which stands in its bundle.
	Label    string
	LabelSig []byte
}

// List is an account's device list in one version.
type List struct {
	Version omemo.Version
	Devices []Device
}

// Contains reports whether a device stands on the list.
func (l List) Contains(id omemo.DeviceID) bool {
	return slices.ContainsFunc(l.Devices, func(d Device) bool { return d.ID == id })
}

// Parse reads <list/> (legacy) or <devices/> (omemo:2); the namespace tells the
// version. Entries without a valid id are skipped and later ones of the same id
// are ignored. Ids are canonical decimal, 1 to 2^31-1 in omemo:2 and 1 to 2^32-1
// in legacy. A label is left out if it is longer than MaxLabel or has no
// signature of 64 bytes. Errors are ErrMalformed and ErrTooLarge.
func Parse(e *stanza.Element) (List, error) {
	l := List{Version: omemo.V2}
	switch {
	case e.Is(stanza.NSV2, "devices"):
	case e.Is(stanza.NSLegacy, "list"):
		l.Version = omemo.Legacy
	default:
		return List{}, fmt.Errorf("%w: <%s/>", ErrMalformed, e.Name.Local)
	}
	if n := len(e.AppendXML(nil)); n > MaxBytes {
		return List{}, fmt.Errorf("%w: %d bytes", ErrTooLarge, n)
	}
	seen := make(map[uint32]bool)
	for child := range e.Elements() {
		if !child.Is(e.Name.Space, "device") {
			continue
		}
		value, _ := child.Attribute("id")
		id, err := stanza.ParseDevice(e.Name.Space, value)
		if err != nil || seen[id] {
			continue
		}
		if seen[id] = true; len(seen) > MaxDevices {
			return List{}, fmt.Errorf("%w: more than %d devices", ErrTooLarge, MaxDevices)
		}
		d := Device{ID: omemo.DeviceID(id)}
		if l.Version == omemo.V2 {
			d.Label, d.LabelSig = label(child)
		}
		l.Devices = append(l.Devices, d)
	}
	return l, nil
}

// label returns the label of a device and its signature, or neither.
func label(device *stanza.Element) (string, []byte) {
	label, _ := device.Attribute("label")
	value, _ := device.Attribute("labelsig")
	signature, err := stanza.DecodeBase64(value)
	if err != nil || len(signature) != 64 || label == "" || utf8.RuneCountInString(label) > MaxLabel {
		return "", nil
	}
	return label, signature
}

// Element returns the list as it is published. Labels are written only together
// with their signatures. A list with one cannot be read by python-twomemo
// before 2.0, whose schema does not know the attribute.
func (l List) Element() *stanza.Element {
	name := "list"
	if l.Version == omemo.V2 {
		name = "devices"
	}
	space := l.Version.Namespace()
	e := stanza.NewElement(space, name)
	for _, d := range l.Devices {
		device := stanza.NewElement(space, "device").SetAttribute("id", strconv.FormatUint(uint64(d.ID), 10))
		if l.Version == omemo.V2 && d.Label != "" && len(d.LabelSig) > 0 {
			device.SetAttribute("label", d.Label)
			device.SetAttribute("labelsig", stanza.EncodeBase64(d.LabelSig))
		}
		e.Append(device)
	}
	return e
}
