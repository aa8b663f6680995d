package mux

import (
	"google.golang.org/protobuf/proto"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
)

// Role is which end of a link a session is.
type Role uint8

// The two ends.
const (
	Client Role = iota
	Server
)

// peer is the other end.
func (r Role) peer() Role { return 1 - r }

// kind is a kind of frame, of either direction.
type kind uint8

const (
	kindNone    kind = iota // the batch's end
	kindUnknown             // a field this version does not know, or no frame at all
	// Channels, both ways.
	kindData
	kindAck
	kindCloseSend
	// Channels, from a client.
	kindOpen
	kindResize
	kindClose
	// Channels, from a server.
	kindOpened
	kindChannelState
	kindClosed
	// Sessions.
	kindHello
	kindWelcome
	kindAuthenticate
	kindAuthState
	kindPing
	kindPong
	kindGoodbye
	kindDrain

	kinds
)

var kindNames = [kinds]string{
	"none", "unknown", "Data", "Ack", "CloseSend", "Open", "Resize", "Close", "Opened", "ChannelState", "Closed",
	"Hello", "Welcome", "Authenticate", "AuthState", "Ping", "Pong", "Goodbye", "Drain",
}

func (k kind) String() string { return kindNames[k] }

// sequenced reports whether frames of the kind are numbered.
func (k kind) sequenced() bool {
	return k == kindData || k >= kindCloseSend && k <= kindClosed
}

// ofSession reports whether frames of the kind belong to channel 0.
func (k kind) ofSession() bool { return k >= kindHello }

func (f *frame) fromClient(m *sluicev1.ClientFrame) {
	switch b := m.GetFrame().(type) {
	case *sluicev1.ClientFrame_Data:
		f.setData(b.Data)
	case *sluicev1.ClientFrame_Ack:
		f.setAck(b.Ack)
	case *sluicev1.ClientFrame_CloseSend:
		f.kind, f.body = kindCloseSend, b.CloseSend
	case *sluicev1.ClientFrame_Open:
		f.kind, f.body = kindOpen, b.Open
	case *sluicev1.ClientFrame_Resize:
		f.kind, f.body = kindResize, b.Resize
	case *sluicev1.ClientFrame_Close:
		f.kind, f.body = kindClose, b.Close
	case *sluicev1.ClientFrame_Hello:
		f.kind, f.body = kindHello, b.Hello
	case *sluicev1.ClientFrame_Authenticate:
		f.kind, f.body = kindAuthenticate, b.Authenticate
	case *sluicev1.ClientFrame_Ping:
		f.kind, f.body = kindPing, b.Ping
	case *sluicev1.ClientFrame_Pong:
		f.kind, f.body = kindPong, b.Pong
	case *sluicev1.ClientFrame_Goodbye:
		f.kind, f.body = kindGoodbye, b.Goodbye
	default:
		f.kind = kindUnknown
	}
}

func (f *frame) fromServer(m *sluicev1.ServerFrame) {
	switch b := m.GetFrame().(type) {
	case *sluicev1.ServerFrame_Data:
		f.setData(b.Data)
	case *sluicev1.ServerFrame_Ack:
		f.setAck(b.Ack)
	case *sluicev1.ServerFrame_CloseSend:
		f.kind, f.body = kindCloseSend, b.CloseSend
	case *sluicev1.ServerFrame_Opened:
		f.kind, f.body = kindOpened, b.Opened
	case *sluicev1.ServerFrame_ChannelState:
		f.kind, f.body = kindChannelState, b.ChannelState
	case *sluicev1.ServerFrame_Closed:
		f.kind, f.body = kindClosed, b.Closed
	case *sluicev1.ServerFrame_Welcome:
		f.kind, f.body = kindWelcome, b.Welcome
	case *sluicev1.ServerFrame_AuthState:
		f.kind, f.body = kindAuthState, b.AuthState
	case *sluicev1.ServerFrame_Ping:
		f.kind, f.body = kindPing, b.Ping
	case *sluicev1.ServerFrame_Pong:
		f.kind, f.body = kindPong, b.Pong
	case *sluicev1.ServerFrame_Goodbye:
		f.kind, f.body = kindGoodbye, b.Goodbye
	case *sluicev1.ServerFrame_Drain:
		f.kind, f.body = kindDrain, b.Drain
	default:
		f.kind = kindUnknown
	}
}

// envelope wraps a frame's body for the direction from role.
func envelope(role Role, channel uint32, seq uint64, body proto.Message) proto.Message {
	if role == Client {
		return clientEnvelope(channel, seq, body)
	}
	return serverEnvelope(channel, seq, body)
}

func clientEnvelope(channel uint32, seq uint64, body proto.Message) *sluicev1.ClientFrame {
	f := &sluicev1.ClientFrame{Channel: channel, Seq: seq}
	switch b := body.(type) {
	case *sluicev1.CloseSend:
		f.Frame = &sluicev1.ClientFrame_CloseSend{CloseSend: b}
	case *sluicev1.Open:
		f.Frame = &sluicev1.ClientFrame_Open{Open: b}
	case *sluicev1.Resize:
		f.Frame = &sluicev1.ClientFrame_Resize{Resize: b}
	case *sluicev1.Close:
		f.Frame = &sluicev1.ClientFrame_Close{Close: b}
	case *sluicev1.Hello:
		f.Frame = &sluicev1.ClientFrame_Hello{Hello: b}
	case *sluicev1.Authenticate:
		f.Frame = &sluicev1.ClientFrame_Authenticate{Authenticate: b}
	case *sluicev1.Ping:
		f.Frame = &sluicev1.ClientFrame_Ping{Ping: b}
	case *sluicev1.Pong:
		f.Frame = &sluicev1.ClientFrame_Pong{Pong: b}
	case *sluicev1.Goodbye:
		f.Frame = &sluicev1.ClientFrame_Goodbye{Goodbye: b}
	default:
		panic("mux: no frame of a client: " + string(body.ProtoReflect().Descriptor().FullName()))
	}
	return f
}

func serverEnvelope(channel uint32, seq uint64, body proto.Message) *sluicev1.ServerFrame {
	f := &sluicev1.ServerFrame{Channel: channel, Seq: seq}
	switch b := body.(type) {
	case *sluicev1.CloseSend:
		f.Frame = &sluicev1.ServerFrame_CloseSend{CloseSend: b}
	case *sluicev1.Opened:
		f.Frame = &sluicev1.ServerFrame_Opened{Opened: b}
	case *sluicev1.ChannelState:
		f.Frame = &sluicev1.ServerFrame_ChannelState{ChannelState: b}
	case *sluicev1.Closed:
		f.Frame = &sluicev1.ServerFrame_Closed{Closed: b}
	case *sluicev1.Welcome:
		f.Frame = &sluicev1.ServerFrame_Welcome{Welcome: b}
	case *sluicev1.AuthState:
		f.Frame = &sluicev1.ServerFrame_AuthState{AuthState: b}
	case *sluicev1.Ping:
		f.Frame = &sluicev1.ServerFrame_Ping{Ping: b}
	case *sluicev1.Pong:
		f.Frame = &sluicev1.ServerFrame_Pong{Pong: b}
	case *sluicev1.Goodbye:
		f.Frame = &sluicev1.ServerFrame_Goodbye{Goodbye: b}
	case *sluicev1.Drain:
		f.Frame = &sluicev1.ServerFrame_Drain{Drain: b}
	default:
		panic("mux: no frame of a server: " + string(body.ProtoReflect().Descriptor().FullName()))
	}
	return f
}

// longText is what a text of a status is cut to when the whole is too long for a frame.
const longText = 4 << 10

// fitting is st, or the essence of it where it is too long: a frame that no batch has room for would end every link of the session.
func fitting(st *sluicev1.Status) *sluicev1.Status {
	if proto.Size(st) <= SmallPiece {
		return st
	}
	c := &sluicev1.Status{
		Code: st.GetCode(), Reason: st.GetReason(), Message: cut(st.GetMessage(), longText), HttpCode: st.GetHttpCode(),
		RetryAfter: st.GetRetryAfter(), Limit: cut(st.GetLimit(), longText), Resumable: st.GetResumable(),
	}
	if k := st.GetKubernetes(); k != nil { // its details are the long part
		c.Kubernetes = &sluicev1.KubernetesStatus{
			Status: cut(k.GetStatus(), longText), Message: cut(k.GetMessage(), longText), Reason: cut(k.GetReason(), longText), Code: k.GetCode(),
		}
	}
	return c
}
