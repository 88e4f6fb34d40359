// Package plugintest holds a built enrolment plugin, in whatever language, to what the package plugin promises the daemon. The author
// of a plugin runs it in the plugin's own tests:
//
//	func TestPlugin(t *testing.T) {
//		plugintest.Run(t, plugintest.Config{
//			Path: "bin/my-plugin",
//			Args: []string{"-list", "testdata/list"},
//			Accounts: []plugintest.Account{
//				{Login: "alice", Want: plugin.Enrolled},
//				{Login: "bob", Want: plugin.NotEnrolled},
//			},
//		})
//	}
//
// It refuses to know the daemon: it starts the program as the daemon does, with an environment that has nothing in it, and asks.
//
// The one rule a newcomer would break: give it at least one account with a second factor and one without, for a plugin that gives
// everybody the same answer keeps every other promise.
package plugintest
