// Package wire is the byte form of what one device sends to another: messages of the Double Ratchet and the key
// exchanges around them, as Protocol Buffers in the framing of either version (XEP-0384 section 4.5, and the
// libsignal messages that the legacy version took over).
//
// Reading is strict, because any stranger may write: at most [MaxSize] bytes, known fields once and with their type,
// varints in the range of uint32 and in their shortest form, no groups, nothing after the last field. Unknown fields
// are passed over. Writing puts fields in ascending order and zeros in full: libomemo-c refuses a message whose zero
// counters are left out. MACs cover the bytes as they came ([Message.Signed]); nothing is serialized again to verify it.
//
// Keys are not checked here, and MACs not verified.
package wire
