package main

import (
	"fmt"
	"strings"

	"github.com/valetkey/valetkey/internal/admin"
)

// noticeRows adds to the status how the notices are. Nil: nobody is told of anything.
func (a *app) noticeRows(t *table, n *admin.Notices) {
	if n == nil {
		return
	}
	text := fmt.Sprintf("%d waiting", n.Waiting)
	if n.Oldest != nil {
		text += ", the oldest since " + moment(*n.Oldest)
	}
	t.row("notices", text+"; for "+strings.Join(n.Targets, ", "))
	if len(n.Outcomes) > 0 {
		var parts []string
		for _, outcome := range sortedKeys(n.Outcomes) {
			parts = append(parts, fmt.Sprintf("%d %s", n.Outcomes[outcome], strings.ReplaceAll(outcome, "_", " ")))
		}
		t.row("", "in the last 24 hours: "+strings.Join(parts, ", "))
	}
}
