package main

import (
	"fmt"
	"io"
	"strings"

	"rsc.io/qr"
)

// quietZone is the empty margin that readers need, in modules (ISO/IEC 18004 section 6.3.8).
const quietZone = 4

// Black on white whatever the terminal's colours are: readers of codes that are light on dark are rare.
const (
	qrColours = "\x1b[38;5;16;48;5;231m"
	qrEnd     = "\x1b[0m"
)

// printQR draws a QR code of the text with half blocks, two modules in each character, as terminals' characters are twice as high as wide.
// Its colours are its own, also when the output is a pipe: ssh without a terminal is one.
func printQR(out io.Writer, text string) error {
	code, err := qr.Encode(text, qr.M)
	if err != nil {
		return fmt.Errorf("drawing the QR code: %w", err) // too long a text, which a secret is not
	}
	var b strings.Builder
	for y := -quietZone; y < code.Size+quietZone; y += 2 {
		b.WriteString(qrColours)
		for x := -quietZone; x < code.Size+quietZone; x++ {
			switch upper, lower := code.Black(x, y), code.Black(x, y+1); {
			case upper && lower:
				b.WriteRune('█')
			case upper:
				b.WriteRune('▀')
			case lower:
				b.WriteRune('▄')
			default:
				b.WriteByte(' ')
			}
		}
		b.WriteString(qrEnd + "\n")
	}
	_, err = io.WriteString(out, b.String())
	return err
}
