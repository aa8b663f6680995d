package link

import (
	"bytes"
	"testing"

	"google.golang.org/grpc/mem"
)

// batch is n bytes as grpc brings them: in pieces of 16 KiB at most.
func batch(n int, fill byte) mem.BufferSlice {
	var all mem.BufferSlice
	for n > 0 {
		k := min(n, 16<<10)
		all = append(all, mem.SliceBuffer(bytes.Repeat([]byte{fill}, k)))
		n -= k
	}
	return all
}

// TestABatchIsReceivedWhole whatever came before it, and who waits for the next keeps no large buffer.
func TestABatchIsReceivedWhole(t *testing.T) {
	var r received
	for i, n := range []int{0, 1, keep, keep + 1, 64 << 10, 5, 200 << 10, keep + 1, 0, keep} {
		if err := NewCodec().Unmarshal(batch(n, byte(i)), &r); err != nil {
			t.Fatal(err)
		}
		if want := bytes.Repeat([]byte{byte(i)}, n); !bytes.Equal(r.b, want) {
			t.Errorf("batch %d: %d bytes, want %d", i, len(r.b), n)
		}
		if n > keep {
			r.release()
		}
		if r.large != nil || cap(r.b) > 2*keep {
			t.Errorf("after batch %d of %d bytes, %d are kept", i, n, cap(r.b))
		}
	}
}

// TestLargeAndSmallBatchesInTurnAllocateNothing: a busy channel among quiet ones must not keep the collector busy.
func TestLargeAndSmallBatchesInTurnAllocateNothing(t *testing.T) {
	var r received
	small, big := batch(100, 1), batch(64<<10, 2)
	turn := func() {
		r.take(small.Len(), small)
		r.take(big.Len(), big)
	}
	turn()
	if n := testing.AllocsPerRun(100, turn); n > 1 { // the pool may be emptied by a collection
		t.Errorf("%v allocations a turn", n)
	}
}
