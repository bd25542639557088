package verify_test

import (
	"fmt"
	"math"
	"testing"

	"example.org/omellium/omemo"
	"example.org/omellium/omemo/verify"
)

// TestColors are the vectors of XEP-0392, section 13.1. Colours are compared to
// the three digits that it gives, as far as 8 bits of a channel can tell.
func TestColors(t *testing.T) {
	for _, row := range []struct {
		text       string
		angle, hue float64
		r, g, b    float64
		deficiency verify.Deficiency
	}{
		{"Romeo", 327.255249, 327.255249, 0.865, 0.000, 0.686, verify.None},
		{"juliet@capulet.lit", 209.410400, 209.410400, 0.000, 0.515, 0.573, verify.None},
		{"😺", 331.199341, 331.199341, 0.872, 0.000, 0.659, verify.None},
		{"council", 359.994507, 359.994507, 0.918, 0.000, 0.394, verify.None},
		{"Board", 171.430664, 171.430664, 0.000, 0.527, 0.457, verify.None},
		{"Romeo", 327.255249, 327.255249, 0.865, 0.000, 0.686, verify.RedGreen},
		{"juliet@capulet.lit", 209.410400, 29.410400, 0.742, 0.359, 0.000, verify.RedGreen},
		{"😺", 331.199341, 331.199341, 0.872, 0.000, 0.659, verify.RedGreen},
		{"council", 359.994507, 359.994507, 0.918, 0.000, 0.394, verify.RedGreen},
		{"Board", 171.430664, 351.430664, 0.904, 0.000, 0.494, verify.RedGreen},
		{"Romeo", 327.255249, 147.255249, 0.000, 0.535, 0.350, verify.Blue},
		{"juliet@capulet.lit", 209.410400, 29.410400, 0.742, 0.359, 0.000, verify.Blue},
		{"😺", 331.199341, 151.199341, 0.000, 0.533, 0.373, verify.Blue},
		{"council", 359.994507, 179.994507, 0.000, 0.524, 0.485, verify.Blue},
		{"Board", 171.430664, 171.430664, 0.000, 0.527, 0.457, verify.Blue},
	} {
		t.Run(fmt.Sprint(row.text, row.deficiency), func(t *testing.T) {
			if got := verify.Hue(row.text, verify.None); math.Abs(got-row.angle) > 1e-6 {
				t.Errorf("angle %f, want %f", got, row.angle)
			}
			if got := verify.Hue(row.text, row.deficiency); math.Abs(got-row.hue) > 1e-6 {
				t.Errorf("hue %f, want %f", got, row.hue)
			}
			c := verify.Color(row.text, row.deficiency)
			for i, pair := range [][2]float64{{float64(c.R), row.r}, {float64(c.G), row.g}, {float64(c.B), row.b}} {
				if math.Abs(pair[0]/255-pair[1]) > 0.0005+0.5/255 {
					t.Errorf("channel %d is %f, want %f", i, pair[0]/255, pair[1])
				}
			}
		})
	}
}

func TestGroupsOfAFingerprint(t *testing.T) {
	f := omemo.Fingerprint{0: 0x01, 4: 0x01, 31: 0xff}
	groups := verify.Groups(f, verify.None)
	text := ""
	for i, g := range groups {
		text += g.Text + map[bool]string{true: "", false: " "}[i == 7]
		if g.Color != verify.Color(g.Text, verify.None) {
			t.Errorf("group %d has another colour", i)
		}
	}
	if text != f.String() || groups[0].Color != groups[1].Color || groups[0].Color == groups[2].Color {
		t.Errorf("%q, %v", text, groups)
	}
}
