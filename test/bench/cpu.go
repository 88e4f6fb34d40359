package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"
)

// cpuTimes is the processor time that the parties to a cell have used, user and system.
type cpuTimes struct {
	Server    time.Duration // the process that listens
	Children  time.Duration // all that it started, as a sum: for valetkeyd, its private Postgres cluster
	Generator time.Duration
}

func (c cpuTimes) minus(o cpuTimes) cpuTimes {
	return cpuTimes{c.Server - o.Server, c.Children - o.Children, c.Generator - o.Generator}
}

// readCPU reads the times so far; those of the children count as the server's if they are the server. What cannot be read
// counts as 0: the times explain the table, they are not its point.
func readCPU(pid int, leashed bool) cpuTimes {
	var c cpuTimes
	if t, err := processTime(pid); err == nil {
		c.Server = t
	}
	for _, child := range descendants(pid) {
		if t, err := processTime(child); err == nil {
			c.Children += t
		}
	}
	if leashed {
		c.Server, c.Children = c.Server+c.Children, 0
	}
	var use syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &use) == nil {
		c.Generator = time.Duration(use.Utime.Nano() + use.Stime.Nano())
	}
	return c
}

// userHz is the unit of times in /proc: USER_HZ is 100 on every architecture that Go runs on.
const userHz = 100

// processTime is the time of a running process, with that of its children that have ended.
func processTime(pid int) (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, ticks, err := parseStat(stat)
	return time.Duration(ticks) * (time.Second / userHz), err
}

// parseStat reads /proc/PID/stat (proc(5)): the parent, and the sum of utime, stime, cutime and cstime.
func parseStat(stat []byte) (parent int, ticks int64, err error) {
	// The name of the program stands in parentheses and may itself hold any character.
	end := bytes.LastIndexByte(stat, ')')
	fields := bytes.Fields(stat[end+1:])
	if end < 0 || len(fields) < 15 {
		return 0, 0, fmt.Errorf("unknown form of /proc stat line: %q", stat)
	}
	if parent, err = strconv.Atoi(string(fields[1])); err != nil {
		return 0, 0, err
	}
	for _, f := range fields[11:15] {
		n, err := strconv.ParseInt(string(f), 10, 64)
		if err != nil {
			return 0, 0, err
		}
		ticks += n
	}
	return parent, ticks, nil
}

// descendants are the running processes that pid started, directly or not.
func descendants(pid int) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	children := map[int][]int{}
	for _, e := range entries {
		p, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue
		}
		if parent, _, err := parseStat(stat); err == nil {
			children[parent] = append(children[parent], p)
		}
	}
	found := children[pid]
	for i := 0; i < len(found); i++ {
		found = append(found, children[found[i]]...)
	}
	return found
}
