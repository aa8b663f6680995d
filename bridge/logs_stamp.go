package bridge

import "time"

// maxStamp is the length of the longest time that a kubelet puts before a line, with the space behind it.
const maxStamp = len("2006-01-02T15:04:05.000000000+00:00 ")

// stampVerdict is what the beginning of a line is.
type stampVerdict uint8

const (
	stampCut  stampVerdict = iota // may become a time when more has come
	stampNone                     // no time
	stampRead
)

// dateTime is the part of a time that has a fixed length. A 0 stands for a digit.
const dateTime = "0000-00-00T00:00:00"

// readStamp reads the time before a line (RFC 3339 with at most nine digits of a second, and a space) and returns it in nanoseconds since 1970
// with its size. Times before 1971, or after 2261, which do not fit, are none.
func readStamp(b []byte) (at int64, size int, v stampVerdict) {
	for i := range len(dateTime) {
		switch {
		case i == len(b):
			return 0, 0, stampCut
		case dateTime[i] == '0' && !isDigit(b[i]), dateTime[i] != '0' && b[i] != dateTime[i]:
			return 0, 0, stampNone
		}
	}
	nanos, i, v := readFraction(b, len(dateTime))
	if v != stampRead {
		return 0, 0, v
	}
	east, i, v := readZone(b, i)
	switch {
	case v != stampRead:
		return 0, 0, v
	case i == len(b):
		return 0, 0, stampCut
	case b[i] != ' ':
		return 0, 0, stampNone
	}
	seconds, ok := readDateTime(b)
	if !ok {
		return 0, 0, stampNone
	}
	return (seconds-east)*int64(time.Second) + nanos, i + 1, stampRead
}

// readFraction reads what may follow the seconds.
func readFraction(b []byte, from int) (nanos int64, to int, v stampVerdict) {
	if from == len(b) {
		return 0, 0, stampCut
	}
	if b[from] != '.' {
		return 0, from, stampRead
	}
	unit := int64(time.Second)
	for to = from + 1; to < len(b) && isDigit(b[to]); to++ {
		if unit /= 10; unit == 0 {
			return 0, 0, stampNone
		}
		nanos += int64(b[to]-'0') * unit
	}
	switch {
	case to == len(b):
		return 0, 0, stampCut
	case to == from+1:
		return 0, 0, stampNone
	}
	return nanos, to, stampRead
}

// readZone reads a zone, in seconds east of UTC.
func readZone(b []byte, from int) (east int64, to int, v stampVerdict) {
	const layout = "+00:00"
	switch {
	case from == len(b):
		return 0, 0, stampCut
	case b[from] == 'Z':
		return 0, from + 1, stampRead
	case b[from] != '+' && b[from] != '-':
		return 0, 0, stampNone
	}
	for i := 1; i < len(layout); i++ {
		switch {
		case from+i == len(b):
			return 0, 0, stampCut
		case layout[i] == '0' && !isDigit(b[from+i]), layout[i] != '0' && b[from+i] != layout[i]:
			return 0, 0, stampNone
		}
	}
	hours, minutes := number(b[from+1:from+3]), number(b[from+4:from+6])
	if hours > 23 || minutes > 59 {
		return 0, 0, stampNone
	}
	if east = int64(hours*3600 + minutes*60); b[from] == '-' {
		east = -east
	}
	return east, from + len(layout), stampRead
}

// readDateTime reads the part of fixed length, whose form is right, in seconds since 1970. The last year that fits in nanoseconds is 2261.
func readDateTime(b []byte) (seconds int64, ok bool) {
	year, month, day := number(b[:4]), number(b[5:7]), number(b[8:10])
	hour, minute, second := number(b[11:13]), number(b[14:16]), number(b[17:19])
	if year < 1971 || year > 2261 || month < 1 || month > 12 || hour > 23 || minute > 59 || second > 59 {
		return 0, false
	}
	t := time.Date(year, time.Month(month), day, hour, minute, second, 0, time.UTC)
	return t.Unix(), t.Day() == day
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// number is the value of digits.
func number(digits []byte) (n int) {
	for _, d := range digits {
		n = 10*n + int(d-'0')
	}
	return n
}
