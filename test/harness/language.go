package harness

// What runs the programs that are written for a test in another language. Their libraries are packages of their own, which
// test/install-peers knows.
var (
	Python       = Peer{"python3", "python3"}
	Perl         = Peer{"perl", "perl"}
	Ruby         = Peer{"ruby", "ruby"}
	Java         = Peer{"java", "openjdk-17-jre-headless"}
	JavaCompiler = Peer{"ecj", "ecj"} // 7 MB, where the JDK beside the runtime is another 72
)
