package spdy

import "encoding/binary"

// The types of control frames, section 2.6.
const (
	typeSynStream    = 1
	typeSynReply     = 2
	typeRstStream    = 3
	typeSettings     = 4
	typePing         = 6
	typeGoAway       = 7
	typeHeaders      = 8
	typeWindowUpdate = 9
)

const (
	version     = 3
	controlBit  = 0x80
	headerBytes = 8 // of a frame, section 2.2
	flagFin     = 1

	// maxStream is the largest number of a stream: 31 bits.
	maxStream = 1<<31 - 1
)

// MaxData is the most that one DATA frame holds, in bytes.
const MaxData = 1<<24 - 1

// Status is why a stream was reset, section 2.6.3.
type Status uint32

// The statuses that this end sends or expects.
const (
	StatusProtocolError Status = 1
	StatusRefused       Status = 3
	StatusCancel        Status = 5
	StatusInternalError Status = 6
)

// Header is a name and a value that a stream is opened with. The name is in lower case.
type Header struct{ Name, Value string }

// dictionaryID is the Adler-32 checksum of the dictionary in section 2.6.10.1, by which a zlib stream names it. Stored blocks refer to
// nothing, so the dictionary itself is not needed.
const dictionaryID = 0xe3c6a7c2

// maxStored is the most that a stored block holds, RFC 1951 section 3.2.4.
const maxStored = 1<<16 - 1

// AppendSynStream appends the frame that opens a stream, section 2.6.1. fin says that this end sends nothing on it. All header blocks of a
// connection are one zlib stream (section 2.6.10): first says that this is its first. The headers take at most 64 KiB.
func AppendSynStream(b []byte, stream uint32, fin, first bool, headers ...Header) []byte {
	at := len(b)
	b = appendControl(b, typeSynStream, fin, 0)
	b = binary.BigEndian.AppendUint32(b, stream&maxStream)
	b = binary.BigEndian.AppendUint32(b, 0) // associated to no stream
	b = append(b, 0, 0)                     // the highest priority; no credential
	b = appendHeaders(b, first, headers)
	setLength(b[at:])
	return b
}

// appendHeaders appends a header block: a stored block of RFC 1951, and the empty one that ends it without ending the stream.
func appendHeaders(b []byte, first bool, headers []Header) []byte {
	if first {
		b = append(b, 0x78, 0x20) // RFC 1950 section 2.2: deflate with a window of 32 KiB; a dictionary, and the fastest level
		b = binary.BigEndian.AppendUint32(b, dictionaryID)
	}
	at := len(b)
	b = append(b, 0, 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(len(headers)))
	for _, h := range headers {
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(h.Name))), h.Name...)
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(h.Value))), h.Value...)
	}
	n := len(b) - at - 5
	if n > maxStored {
		panic("spdy: headers of more than 64 KiB")
	}
	binary.LittleEndian.PutUint16(b[at+1:], uint16(n))
	binary.LittleEndian.PutUint16(b[at+3:], ^uint16(n))
	return append(b, 0, 0, 0, 0xff, 0xff)
}

// AppendData appends a DATA frame, section 2.2.2, of at most [MaxData] bytes. fin says that this end sends no more on the stream.
func AppendData(b []byte, stream uint32, fin bool, data []byte) []byte {
	if len(data) > MaxData {
		panic("spdy: a DATA frame of 16 MiB")
	}
	b = binary.BigEndian.AppendUint32(b, stream&maxStream)
	b = binary.BigEndian.AppendUint32(b, uint32(flags(fin))<<24|uint32(len(data)))
	return append(b, data...)
}

// AppendRstStream appends the frame that ends both directions of a stream at once, section 2.6.3.
func AppendRstStream(b []byte, stream uint32, why Status) []byte {
	b = appendControl(b, typeRstStream, false, 8)
	b = binary.BigEndian.AppendUint32(b, stream&maxStream)
	return binary.BigEndian.AppendUint32(b, uint32(why))
}

// AppendPing appends a PING, section 2.6.5: a question, whose number is odd, or the answer to one of the peer's, whose number is even.
func AppendPing(b []byte, id uint32) []byte {
	b = appendControl(b, typePing, false, 4)
	return binary.BigEndian.AppendUint32(b, id)
}

// appendControl appends the beginning of a control frame with a payload of n bytes, section 2.2.1.
func appendControl(b []byte, kind byte, fin bool, n int) []byte {
	b = append(b, controlBit, version, 0, kind)
	return binary.BigEndian.AppendUint32(b, uint32(flags(fin))<<24|uint32(n))
}

// setLength notes the length of a frame that is complete.
func setLength(frame []byte) {
	n := len(frame) - headerBytes
	frame[5], frame[6], frame[7] = byte(n>>16), byte(n>>8), byte(n)
}

func flags(fin bool) byte {
	if fin {
		return flagFin
	}
	return 0
}
