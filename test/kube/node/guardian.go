package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"github.com/creack/pty"
)

// What a guardian finds open beside the standard streams of its container.
const (
	lifelineFile = 3 // to read: each byte is a signal for the command; its end is the end of everything
	reportFile   = 4 // to write: why the command could not be started, or nothing
	aliveFile    = 5 // holds the lock that tells that processes of this node run
)

// guardian runs the command of a container, or of an exec, between the node and it, and returns the status to exit
// with. It is what a PID namespace is elsewhere, for who may not make one: when the command ends, or the node however
// it comes, every descendant of the command is killed, wherever it moved to.
func guardian(command []string) int {
	for _, file := range []int{lifelineFile, reportFile, aliveFile} {
		syscall.CloseOnExec(file)
	}
	// A hang-up of the terminal, or a key typed at it, is for the command. Ignoring would be inherited, catching is not.
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGTSTP,
		syscall.SIGTTIN, syscall.SIGTTOU)

	report := os.NewFile(reportFile, "report")
	cmd, err := startCommand(command)
	if err != nil {
		fmt.Fprint(report, err)
		return 1
	}
	report.Close()
	go obey(cmd.Process.Pid)
	status := awaitCommand(cmd.Process.Pid)
	endDescendants(cmd.Process.Pid)
	return exitStatus(status)
}

func startCommand(command []string) (*exec.Cmd, error) {
	if err := adoptOrphans(); err != nil {
		return nil, fmt.Errorf("adopt orphans: %w", err)
	}
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	_, _, noTerminal := pty.Getsize(os.Stdin)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Foreground: noTerminal == nil}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return cmd, nil
}

// obey passes on the signals the node sends, and kills everything when the node is gone.
func obey(pid int) {
	lifeline := os.NewFile(lifelineFile, "lifeline")
	var sig [1]byte
	for {
		if _, err := lifeline.Read(sig[:]); err != nil {
			endDescendants(pid)
			os.Exit(killed)
		}
		_ = syscall.Kill(pid, syscall.Signal(sig[0])) // fails only when it has ended
	}
}

// awaitCommand waits for the command, and on the way for the orphans it leaves. Who was waited for by [obey] was killed by it.
func awaitCommand(pid int) syscall.WaitStatus {
	for {
		var status syscall.WaitStatus
		ended, err := syscall.Wait4(-1, &status, 0, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil { // ECHILD
			return syscall.WaitStatus(syscall.SIGKILL)
		}
		if ended == pid {
			return status
		}
	}
}

// exitStatus is what a shell makes of how a process ended: its own status, or 128 and the signal.
func exitStatus(status syscall.WaitStatus) int {
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}
