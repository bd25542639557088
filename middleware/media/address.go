package media

import "net/netip"

// special are the networks that are not on the public Internet, or lead out of it
// again, though the bits of the address do not say so (IANA's registries of special
// purpose addresses).
var special = prefixes(
	"0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15",
	"198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4",
	"2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", // Teredo and 6to4 hold addresses of IPv4
)

var (
	global = netip.MustParsePrefix("2000::/3")     // all that is assigned of IPv6
	nat64  = netip.MustParsePrefix("64:ff9b::/96") // IPv4 as seen from networks without (RFC 6052)
)

func prefixes(list ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// isPublic reports whether an address belongs to a host on the public Internet: none
// of this machine, of its network, or of nobody.
func isPublic(ip netip.Addr) bool {
	if ip.Zone() != "" {
		return false
	}
	ip = ip.Unmap()
	if nat64.Contains(ip) {
		b := ip.As16()
		ip = netip.AddrFrom4([4]byte(b[12:]))
	}
	if !ip.IsGlobalUnicast() || ip.IsPrivate() || ip.Is6() && !global.Contains(ip) {
		return false
	}
	for _, p := range special {
		if p.Contains(ip) {
			return false
		}
	}
	return true
}
