package scenario

import (
	"testing"

	"github.com/valetkey/valetkey/test/harness"
)

// TestEnrolmentScenarios is for a site that wants a second factor of everybody: the daemon of the other scenarios wants none.
func TestEnrolmentScenarios(t *testing.T) {
	list := harness.NewEnrolledList(t, "judy", "kim exempt")
	d := harness.NewDaemon(t, "")
	d.Sections = list.Enrolment(t, `require = "login"`, `help = "enrol one at https://id.example.org"`)
	d.Start(t)
	d.PluginUp(t, 0)
	run(t, d, "testdata/enrolment")
}
