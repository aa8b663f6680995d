package bridge

import (
	"context"
	"net/url"
	"strings"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
)

// maxCommand is how long a command may be, in bytes, each argument with one more. It travels in the URL, whose escapes make it three times as
// long at most, and an API server takes a request's header of up to 1 MiB.
const maxCommand = 64 << 10

// startExec is Start for a process in a container. It returns when the process is over for the channel.
func startExec(ctx context.Context, up Upstream, open *sluicev1.Open, ch Channel, opts *Options, done func(Outcome)) {
	t := open.GetTarget().GetExec()
	p := newProcess(ctx, up, open, ch, opts)
	p.path = podPath(t.GetNamespace(), t.GetPod(), "exec")
	p.log = podPath(t.GetNamespace(), t.GetPod(), "log")
	p.query = streamsQuery(t, t.GetContainer())
	p.query["command"] = t.GetCommand()
	p.streams, p.exits = streamsOf(t), true
	done(p.run())
}

func validateExec(t *sluicev1.ExecTarget) error {
	if err := validatePod("exec", t.GetNamespace(), t.GetPod(), t.GetContainer()); err != nil {
		return err
	}
	if err := validateCommand("exec.command", t.GetCommand()); err != nil {
		return err
	}
	return validateStreams("exec", t)
}

func validateCommand(field string, command []string) error {
	if len(command) == 0 || command[0] == "" {
		return invalidField(field, "no program is named")
	}
	size := 0
	for _, arg := range command {
		if strings.Contains(arg, "\x00") {
			return invalidField(field, "no argument of a process can hold a NUL")
		}
		if size += len(arg) + 1; size > maxCommand {
			return invalidField(field, "it is longer than %d bytes, each argument counted with one more: it travels in the URL", maxCommand)
		}
	}
	return nil
}

// standardStreams is a target that says which of a process's streams are connected.
type standardStreams interface {
	GetStdin() bool
	GetStdout() bool
	GetStderr() bool
	GetTty() bool
}

func validateStreams(kind string, t standardStreams) error {
	switch {
	case !t.GetStdin() && !t.GetStdout() && !t.GetStderr():
		return invalidField(kind+".stdout", "one of stdin, stdout and stderr at least is to be connected")
	case t.GetTty() && t.GetStderr():
		return invalidField(kind+".stderr", "a terminal has no standard error of its own")
	}
	return nil
}

func streamsOf(t standardStreams) streams {
	return streams{stdin: t.GetStdin(), stdout: t.GetStdout(), stderr: t.GetStderr(), tty: t.GetTty()}
}

// streamsQuery says of every stream whether it is wanted: what is left out means yes for some of them (v1.PodAttachOptions).
func streamsQuery(t standardStreams, container string) url.Values {
	q := url.Values{}
	if container != "" {
		q.Set("container", container)
	}
	for name, wanted := range map[string]bool{"stdin": t.GetStdin(), "stdout": t.GetStdout(), "stderr": t.GetStderr(), "tty": t.GetTty()} {
		if wanted {
			q.Set(name, "true")
		} else {
			q.Set(name, "false")
		}
	}
	return q
}
