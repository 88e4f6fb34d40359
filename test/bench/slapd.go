package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/valetkey/valetkey/internal/secret"
)

// slapdConfig is what Debian's package sets up (mdb, 16 threads, the access rules), with the defaults that matter here
// written out, without the log, and with the index that a directory of this size has.
const slapdConfig = `dn: cn=config
objectClass: olcGlobal
cn: config
olcLogLevel: 0
olcThreads: 16
olcToolThreads: 1

dn: cn=module{0},cn=config
objectClass: olcModuleList
cn: module{0}
olcModulePath: %[2]s
olcModuleLoad: back_mdb

dn: cn=schema,cn=config
objectClass: olcSchemaConfig
cn: schema

include: file://%[3]s/core.ldif
include: file://%[3]s/cosine.ldif
include: file://%[3]s/inetorgperson.ldif

dn: olcDatabase={0}config,cn=config
objectClass: olcDatabaseConfig
olcDatabase: {0}config
olcAccess: to * by * none

dn: olcDatabase={1}mdb,cn=config
objectClass: olcDatabaseConfig
objectClass: olcMdbConfig
olcDatabase: {1}mdb
olcSuffix: %[4]s
olcDbDirectory: %[1]s
olcDbMaxSize: 1073741824
olcDbIndex: objectClass eq
olcDbIndex: cn,uid,mail eq
olcLastMod: TRUE
olcAccess: to attrs=userPassword by self write by anonymous auth by * none
olcAccess: to * by * read
`

// Where Debian keeps slapd's schemas and, by multi-arch or not, its modules.
const slapdSchemaDir = "/etc/ldap/schema"

var slapdModuleDirs = []string{"/usr/lib/ldap", "/usr/lib/openldap"}

// startSlapd runs Debian's slapd in a directory of its own, on this loopback address, with this many {SSHA} passwords for
// each account, the credential's among them. One favours slapd, which compares value after value. logLevel is slapd's -d:
// "0" logs nothing; "stats" writes its lines about connections and binds to a file. It shares nothing with a slapd that may
// be installed and running.
func startSlapd(ctx context.Context, dir, address string, creds []credential, passwords int, reader credential, logLevel string) (*process, error) {
	slapd, err := findProgram("slapd", "slapd")
	if err != nil {
		return nil, err
	}
	slapadd, err := findProgram("slapadd", "slapd")
	if err != nil {
		return nil, err
	}
	moduleDir := slapdModuleDirs[0]
	for _, d := range slapdModuleDirs {
		if _, err := os.Stat(filepath.Join(d, "back_mdb.so")); err == nil {
			moduleDir = d
		}
	}
	configDir, dataDir := filepath.Join(dir, "slapd.d"), filepath.Join(dir, "slapd-data")
	for _, d := range []string{configDir, dataDir} {
		if err := os.Mkdir(d, 0o700); err != nil {
			return nil, err
		}
	}
	err = runSlapadd(ctx, slapadd, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, slapdConfig, dataDir, moduleDir, slapdSchemaDir, baseDN)
		return err
	}, "-n", "0", "-F", configDir)
	if err != nil {
		return nil, err
	}
	err = runSlapadd(ctx, slapadd, func(w io.Writer) error { return writeLDIF(w, creds, passwords, reader) }, "-q", "-n", "1", "-F", configDir)
	if err != nil {
		return nil, err
	}
	// -d keeps it in the foreground, also -d 0.
	p, err := startProcess(dir, "slapd", slapd, "-d", logLevel, "-h", "ldap://"+address+"/", "-F", configDir)
	if err != nil {
		return nil, err
	}
	return p, p.ready(ctx, func() error { return prove(newLDAP("tcp", address, rightAndWrong(creds[0]))) })
}

func runSlapadd(ctx context.Context, program string, write func(io.Writer) error, args ...string) error {
	var ldif strings.Builder
	if err := write(&ldif); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stdin = strings.NewReader(ldif.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("slapadd %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// writeLDIF writes the tree: the base, the organisational units, the reader, an entry for each credential with what valetkeyd has of it, and
// the groups. The credential's password stands at another place among the values from entry to entry.
func writeLDIF(w io.Writer, creds []credential, passwords int, reader credential) error {
	b := bufio.NewWriter(w)
	fmt.Fprintf(b, "dn: %s\nobjectClass: dcObject\nobjectClass: organization\ndc: example\no: example\n\n", baseDN)
	for _, unit := range []string{"people", "groups", "readers"} {
		fmt.Fprintf(b, "dn: ou=%s,%s\nobjectClass: organizationalUnit\nou: %s\n\n", unit, baseDN, unit)
	}
	fmt.Fprintf(b, "dn: %s\nobjectClass: applicationProcess\nobjectClass: simpleSecurityObject\ncn: %s\nuserPassword: %s\n\n",
		readerDN(reader), reader.login, ssha(reader.password))
	for i, c := range creds {
		fmt.Fprintf(b, "dn: %s\nobjectClass: inetOrgPerson\nuid: %s\ncn: %s\ndisplayName: %s\n", personDN(c), c.login, c.displayName(), c.displayName())
		for name, values := range c.attributes() {
			for _, v := range values {
				fmt.Fprintf(b, "%s: %s\n", name, v)
			}
		}
		for n := range passwords {
			password := c.password
			if n != i%passwords {
				password = secret.Generate(secret.DefaultLength)
			}
			fmt.Fprintf(b, "userPassword: %s\n", ssha(password))
		}
		b.WriteByte('\n')
	}
	n := 0
	for members := range slices.Chunk(creds, groupSize) {
		fmt.Fprintf(b, "dn: cn=%s,%s\nobjectClass: groupOfNames\ncn: %s\n", groupName(n), groupsDN, groupName(n))
		for _, c := range members {
			fmt.Fprintf(b, "member: %s\n", personDN(c))
		}
		b.WriteByte('\n')
		n++
	}
	return b.Flush()
}

// ssha is OpenLDAP's default scheme: SHA-1 of password and salt, then the salt (slapd.conf(5), password-hash).
func ssha(password string) string {
	salt := make([]byte, 8)
	rand.Read(salt)
	sum := sha1.Sum(append([]byte(password), salt...))
	return "{SSHA}" + base64.StdEncoding.EncodeToString(append(sum[:], salt...))
}
