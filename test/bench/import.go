package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// importGoal is how many hashed rows a second valetkey import shall take over.
const importGoal = 5000

// measureImport is the run of --import: a file of that many rows, each with a hash, two for each account, is imported by the companion
// command, and once more.
func (b *bench) measureImport(ctx context.Context) error {
	d, err := b.memoryDaemon(ctx, "import", "")
	if d != nil {
		defer d.discard()
	}
	if err != nil {
		return err
	}
	progress("valetkey: building")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", b.dir, commandPackage).CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w\n%s", err, out)
	}
	file := filepath.Join(b.dir, "users.csv")
	if err := writeImport(file, b.importRows); err != nil {
		return err
	}
	times := map[string]time.Duration{}
	for _, name := range []string{"dry run", "import", "again"} {
		args := []string{"--socket", d.adminSocket(), "import", "csv", file, "--json"}
		if name != "dry run" {
			args = append(args, "--apply")
		}
		progress("%s of %s rows", name, thousands(float64(b.importRows)))
		begin := time.Now()
		cmd := exec.CommandContext(ctx, filepath.Join(b.dir, "valetkey"), args...)
		cmd.Stderr = os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("valetkey import: %w", err)
		}
		times[name] = time.Since(begin)
	}
	var rows int
	if err := d.db.QueryRowContext(ctx, "SELECT count(*) FROM app_passwords WHERE origin = 'imported'").Scan(&rows); err != nil {
		return err
	}
	rate := func(name string) float64 { return float64(b.importRows) / times[name].Seconds() }
	b.rep.Checks = append(b.rep.Checks,
		check{Name: "app passwords after the import and one more", Got: thousands(float64(rows)), Want: thousands(float64(b.importRows)), Met: rows == b.importRows},
		check{Name: "hashed rows imported a second, by valetkey import", Got: thousands(rate("import")), Want: "at least " + thousands(importGoal),
			Met: rate("import") >= importGoal, Timed: true},
		check{Name: "the same, dry run", Got: thousands(rate("dry run")), Want: "at least " + thousands(importGoal), Met: rate("dry run") >= importGoal, Timed: true},
		check{Name: "the same, where all is there already", Got: thousands(rate("again")), Want: "at least " + thousands(importGoal), Met: rate("again") >= importGoal, Timed: true})
	return nil
}

// writeImport writes a CSV file. The hashes are salted SHA-256, which costs nothing to make; what one costs to verify does not matter to
// an import.
func writeImport(path string, rows int) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	w := bufio.NewWriter(f)
	fmt.Fprintln(w, "id,login,label,hash,services,name,mail")
	for i := range rows {
		var salt [8]byte
		rand.Read(salt[:])
		sum := sha256.Sum256(append([]byte("secret"), salt[:]...))
		fmt.Fprintf(w, "%d,user%07d@example.org,device %d,{SSHA256}%s,imap smtp submission,User %d,user%07d@example.org\n", i, i/2, i%2,
			base64.StdEncoding.EncodeToString(append(sum[:], salt[:]...)), i/2, i/2)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return f.Close()
}
