package bridge

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"strings"

	"google.golang.org/grpc/codes"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
)

// A cursor is base64url, without padding, of
//
//	1 byte   version of the format, 1
//	1 byte   kind, 'w' for a watch, 'l' for a log
//	8 bytes  beginning of SHA-256 of the cluster's identity
//	8 bytes  beginning of SHA-256 of the target
//	n bytes  of a watch its resource version, of a log its position
//
// The hashes keep an honest client from continuing in the wrong place; a forged cursor opens nothing that an empty one would not.
const (
	cursorFormat = 1
	watchCursor  = 'w'
	logCursor    = 'l'
	hashBytes    = 8
	cursorHeader = 2 + 2*hashBytes
	// maxCursor is how long a cursor may be, in characters.
	maxCursor = 512
	// maxVersion is how long a resource version may be to be named by a cursor, in bytes.
	maxVersion = 256
)

// cursors makes and reads the cursors of one target at one cluster. Immutable.
type cursors [cursorHeader]byte

// watchCursors are the cursors of a watch. changes_only is no part of the target here: a cursor says where to go on, and then it has no meaning.
func watchCursors(identity string, t *sluicev1.WatchTarget) *cursors {
	c := &cursors{cursorFormat, watchCursor}
	copy(c[2:], hash(identity))
	copy(c[2+hashBytes:], hash(t.GetGroup(), t.GetVersion(), t.GetResource(), t.GetNamespace(), t.GetName(),
		t.GetLabelSelector(), t.GetFieldSelector()))
	return c
}

// hash digests strings so that no two lists of them run into each other.
func hash(parts ...string) []byte {
	h := sha256.New()
	var n [8]byte
	for _, p := range parts {
		binary.BigEndian.PutUint64(n[:], uint64(len(p)))
		h.Write(n[:])
		h.Write([]byte(p))
	}
	return h.Sum(nil)[:hashBytes]
}

// at is the cursor of a resource version; empty for one that cannot be named.
func (c *cursors) at(version string) string {
	if !nameable(version) {
		return ""
	}
	var raw [cursorHeader + maxVersion]byte
	n := copy(raw[:], c[:])
	n += copy(raw[n:], version)
	return base64.RawURLEncoding.EncodeToString(raw[:n])
}

// nameable reports whether a cursor can name a resource version. A version is opaque: it is never read as a number, nor compared
// (https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions).
func nameable(version string) bool {
	return version != "" && len(version) <= maxVersion && printable(version)
}

// version reads a cursor: INVALID_ARGUMENT with REASON_INVALID_CURSOR unless [cursors.at] made it, for this target and this cluster.
func (c *cursors) version(cursor string) (string, error) {
	rest, err := c.open(cursor)
	switch {
	case err != nil:
		return "", err
	case !nameable(string(rest)):
		return "", foreignCursor()
	}
	return string(rest), nil
}

// open checks the header of a cursor and returns what follows.
func (c *cursors) open(cursor string) (rest []byte, err error) {
	if len(cursor) > maxCursor {
		return nil, invalidCursor("it is longer than %d characters", maxCursor)
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(cursor)
	switch {
	case err != nil || strings.ContainsAny(cursor, "\r\n"): // which the decoder would skip
		return nil, foreignCursor()
	case len(raw) <= cursorHeader || raw[0] != cursorFormat || raw[1] != c[1]:
		return nil, foreignCursor()
	case !bytes.Equal(raw[2:2+hashBytes], c[2:2+hashBytes]):
		return nil, invalidCursor("it belongs to another cluster")
	case !bytes.Equal(raw[:cursorHeader], c[:]):
		return nil, invalidCursor("it belongs to another target")
	}
	return raw[cursorHeader:], nil
}

func foreignCursor() error { return invalidCursor("it is not what this gateway made") }

func invalidCursor(format string, args ...any) error {
	e := status.New(codes.InvalidArgument, sluicev1.Reason_REASON_INVALID_CURSOR, format, args...)
	e.Message = "cursor: " + e.Message
	return e
}
