package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// table prints columns that are as wide as their widest cell, two spaces apart.
type table struct {
	out  io.Writer
	rows [][]string
}

func (a *app) table(header ...string) *table {
	t := &table{out: a.out}
	if len(header) > 0 {
		t.rows = append(t.rows, header)
	}
	return t
}

func (t *table) row(cells ...string) {
	for i, c := range cells {
		cells[i] = visible(c)
	}
	t.rows = append(t.rows, cells)
}

func (t *table) print() {
	var width []int
	for _, r := range t.rows {
		for i, c := range r {
			if i == len(width) {
				width = append(width, 0)
			}
			width[i] = max(width[i], utf8.RuneCountInString(c))
		}
	}
	for _, r := range t.rows {
		var line strings.Builder
		for i, c := range r {
			if i > 0 {
				line.WriteString("  ")
			}
			line.WriteString(c)
			line.WriteString(strings.Repeat(" ", width[i]-utf8.RuneCountInString(c)))
		}
		fmt.Fprintln(t.out, strings.TrimRight(line.String(), " "))
	}
}

// visible is s as it is if a terminal shows it without being told to do something, and quoted otherwise.
func visible(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) || !utf8.ValidString(s) {
		return strconv.QuoteToASCII(s)
	}
	return s
}

func day(t time.Time) string { return t.Local().Format("2006-01-02") }

func moment(t time.Time) string { return t.Local().Format("2006-01-02 15:04") }

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
