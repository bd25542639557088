package middleware

import (
	"sync/atomic"

	"example.org/omellium/omemo"
)

// identity is our own address. The account never changes; the device id does once
// at most, when another device of the account turns out to have it already, and
// that is while messages are read.
type identity struct {
	JID    string
	device atomic.Uint32
}

func (i *identity) set(a omemo.Address) {
	i.JID = a.JID
	i.renumber(a.Device)
}

func (i *identity) renumber(id omemo.DeviceID) { i.device.Store(uint32(id)) }

// Device returns our device id as it is now.
func (i *identity) Device() omemo.DeviceID { return omemo.DeviceID(i.device.Load()) }

// Address returns both.
func (i *identity) Address() omemo.Address { return omemo.Address{JID: i.JID, Device: i.Device()} }
