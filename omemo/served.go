package omemo

import (
	"errors"
	"fmt"
	"slices"
)

// ErrVersion: the device is only found in a version that is not served, see
// Options.Versions.
var ErrVersion = errors.New("omemo: version is not served")

// served returns the versions that Options.Versions asks for.
func (o *Options) served() ([]Version, error) {
	if o.Versions == nil {
		return Versions(), nil
	}
	if len(o.Versions) == 0 || slices.ContainsFunc(o.Versions, func(v Version) bool { return !v.Valid() }) {
		return nil, fmt.Errorf("omemo: versions %v cannot be served", o.Versions)
	}
	return slices.Clone(o.Versions), nil
}

// serves reports whether anything is sent in a version.
func (m *Manager) serves(v Version) bool { return slices.Contains(m.served, v) }

// leave ends to serve a version, for as long as this Manager lives.
func (m *Manager) leave(v Version) {
	m.served = slices.DeleteFunc(slices.Clone(m.served), func(s Version) bool { return s == v })
}
