package verify

import (
	"crypto/sha1"
	"encoding/binary"
	"fmt"
	"image/color"
	"math"

	"example.org/omellium/omemo"
)

// Deficiency is a way in which people see fewer colours.
type Deficiency int

// The corrections of XEP-0392, section 5.2.
const (
	None     Deficiency = iota
	RedGreen            // red/green-blindness
	Blue                // blue-blindness
)

// Hue returns the angle in degrees, 0 to 360, that stands for a text (XEP-0392,
// sections 5.1 and 5.2).
func Hue(text string, d Deficiency) float64 {
	sum := sha1.Sum([]byte(text))
	angle := float64(binary.LittleEndian.Uint16(sum[:2])) / 65536 * 360
	switch d {
	case RedGreen:
		return math.Mod(math.Mod(angle+90, 180)-90+360, 360)
	case Blue:
		return math.Mod(angle, 180)
	}
	return angle
}

// Color returns the colour that stands for a text, such as a JID: saturation 100
// and lightness 50 in HSLuv (XEP-0392, section 5.4).
func Color(text string, d Deficiency) color.RGBA {
	r, g, b := rgb(Hue(text, d), 100, 50)
	return color.RGBA{channel(r), channel(g), channel(b), 255}
}

func channel(x float64) uint8 { return uint8(math.Round(255 * min(max(x, 0), 1))) }

// Groups returns the 8 groups of a fingerprint, each with its colour. Equal groups
// have equal colours; equal colours do not mean equal groups.
func Groups(f omemo.Fingerprint, d Deficiency) (groups [8]Group) {
	for i := range groups {
		groups[i].Text = fmt.Sprintf("%x", f[4*i:4*i+4])
		groups[i].Color = Color(groups[i].Text, d)
	}
	return groups
}

// Group is 8 hexadecimal digits of a fingerprint.
type Group struct {
	Text  string
	Color color.RGBA
}

// HSLuv is CIELUV with the saturation stretched to what sRGB can show at that
// lightness and hue; the constants are those of sRGB and D65.
var (
	toRGB = [3][3]float64{
		{3.240969941904521, -1.537383177570093, -0.498610760293},
		{-0.96924363628087, 1.87596750150772, 0.041555057407175},
		{0.055630079696993, -0.20397695888897, 1.056971514242878},
	}
	whiteU, whiteV = 0.19783000664283, 0.46831999493879
)

const (
	kappa   = 903.2962962
	epsilon = 0.0088564516
)

// luminance returns Y of a lightness of CIELUV.
func luminance(l float64) float64 {
	if l > 8 {
		return math.Pow((l+16)/116, 3)
	}
	return l / kappa
}

// maxChroma returns the greatest chroma that sRGB can show at a lightness and hue:
// the nearest of the six lines, one for each channel at 0 and at 1, that the ray
// from white crosses.
func maxChroma(l, hue float64) float64 {
	sin, cos := math.Sincos(hue / 180 * math.Pi)
	y := math.Pow(l+16, 3) / 1560896
	if y <= epsilon {
		y = l / kappa
	}
	nearest := math.Inf(1)
	for _, m := range toRGB {
		for t := range 2 {
			top1 := (284517*m[0] - 94839*m[2]) * y
			top2 := (838422*m[2]+769860*m[1]+731718*m[0])*l*y - 769860*float64(t)*l
			bottom := (632260*m[2]-126452*m[1])*y + 126452*float64(t)
			if length := top2 / bottom / (sin - top1/bottom*cos); length >= 0 {
				nearest = min(nearest, length)
			}
		}
	}
	return nearest
}

// rgb converts a colour of HSLuv: hue in degrees, saturation and lightness in
// percent, channels 0 to 1.
func rgb(hue, saturation, l float64) (r, g, b float64) {
	sin, cos := math.Sincos(hue / 180 * math.Pi)
	chroma := maxChroma(l, hue) / 100 * saturation
	u, v := cos*chroma/(13*l)+whiteU, sin*chroma/(13*l)+whiteV
	y := luminance(l)
	x := 9 * y * u / (4 * v)
	z := (9*y - 15*v*y - v*x) / (3 * v)
	var channels [3]float64
	for i, m := range toRGB {
		linear := m[0]*x + m[1]*y + m[2]*z
		if linear <= 0.0031308 {
			channels[i] = 12.92 * linear
		} else {
			channels[i] = 1.055*math.Pow(linear, 1/2.4) - 0.055
		}
	}
	return channels[0], channels[1], channels[2]
}
