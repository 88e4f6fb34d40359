// Package plugin is what the author of an enrolment plugin imports. Such a plugin tells valetkeyd whether a user has a second factor;
// how a site knows that is the plugin's business and nobody else's.
//
// A plugin is a program whose main function calls [Serve] with something that answers one question:
//
//	func main() {
//		plugin.Serve(plugin.CheckerFunc(func(ctx context.Context, r plugin.Request) (plugin.Answer, error) {
//			has, err := askTheDirectory(ctx, r.Login)
//			switch {
//			case err != nil:
//				return plugin.Answer{}, err // not known: never guess
//			case has:
//				return plugin.Answer{Status: plugin.Enrolled}, nil
//			}
//			return plugin.Answer{Status: plugin.NotEnrolled, ReasonCode: "no_token"}, nil
//		}))
//	}
//
// valetkeyd starts the program, keeps it running and asks it over a private socket. It never sends a password. The program gets an
// environment of its own with nothing of the daemon's in it, /dev/null as standard input and / as its working folder. It is killed
// when the daemon ends, in whatever way. What it needs to know it gets as arguments or reads from a file of its own.
//
// What a Check may count on, and what is asked of it:
//
//   - Its context ends when the daemon no longer waits, after a second unless the daemon was told otherwise. Hand it on to
//     everything that can wait.
//   - It is called from several goroutines at once, but never twice at once for one account. A checker that cannot bear many at once
//     implements [Describer] and says how many it wants.
//   - Answers are kept by the daemon: see [Answer.ValidFor]. There is no need for a cache in the plugin.
//   - Whatever goes wrong is an error. The daemon then falls back on what it was told before, or gives the user a temporary failure. An
//     answer made up in its place either lets the wrong people in or tells the right ones that their password is wrong.
//   - Standard error goes to the daemon's log, line by line, up to 100 lines a second of 4 KiB. Standard output belongs to the
//     protocol until Serve is called; print nothing there.
//
// Package plugin/plugintest holds a built plugin to all this; run it in the plugin's own tests. With a daemon that has it in its
// configuration, "valetkey plugin check LOGIN --fresh" shows what it answers, and "valetkey plugin status" how it does.
//
// # Other languages
//
// The daemon speaks go-plugin's protocol over gRPC. A program in any language can be a plugin:
//
//  1. Refuse to run unless the environment variable [CookieKey] has the value [CookieValue]: a person started it by mistake.
//  2. Listen on a Unix socket in the folder $PLUGIN_UNIX_SOCKET_DIR; no other place is accepted.
//  3. Serve valetkey.enrolment.v1.Enrolment of plugin/enrolment.proto there. plugin.GRPCController's Shutdown may be left out:
//     the program is then killed when it is no longer needed.
//  4. Print one line to standard output and flush it: 1|1|unix|PATH|grpc. The first number is go-plugin's, the second is
//     [ProtocolVersion], which must be among the comma-separated numbers in $PLUGIN_PROTOCOL_VERSIONS.
//
// The package refuses to know how the daemon starts a plugin and what it does with an answer: that is plugin/host.
//
// The one rule a newcomer would break: "I could not find out" is an error, not [NotEnrolled].
package plugin
