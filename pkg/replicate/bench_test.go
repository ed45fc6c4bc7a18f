package replicate

import (
	"os"
	"testing"
)

// BenchmarkDiff compares an archive of ten hours with that of a peer, over HTTP.
func BenchmarkDiff(b *testing.B) {
	const n = 9000
	whole := clean(0, n)
	for _, c := range []struct {
		name  string
		specs []spec
		spans int
	}{
		{"equal", whole, 0},
		{"100-differ", scattered(whole, n/100), 100},
	} {
		b.Run(c.name, func(b *testing.B) {
			p := servePeer(b, newArchive(b, c.specs...))
			own := Dir{newArchive(b, whole...)}
			b.ReportAllocs()
			for b.Loop() {
				if spans := diff(b, own, Peer{p.client}, DiffOptions{}); len(spans) != c.spans {
					b.Fatal(len(spans))
				}
			}
			in, _ := p.client.Traffic()
			b.ReportMetric(float64(in)/float64(b.N), "B-moved/op")
		})
	}
}

// scattered leaves out one in every so many segments.
func scattered(l []spec, every int) []spec {
	var kept []spec
	for i, s := range l {
		if i%every != every/2 {
			kept = append(kept, s)
		}
	}
	return kept
}

// BenchmarkBackfill fetches forty segments of 3 MB into an empty archive.
func BenchmarkBackfill(b *testing.B) {
	var l []spec
	for n := range 40 {
		l = append(l, spec{n: n, size: 3_000_000})
	}
	p := servePeer(b, newArchive(b, l...))
	b.SetBytes(int64(len(l)) * 3_000_000)
	b.ReportAllocs()
	for b.Loop() {
		dst := newArchive(b)
		r, err := Backfill(b.Context(), dst, Peer{p.client}, BackfillOptions{Log: quiet})
		if err != nil || r.Segments != len(l) || r.Left != 0 {
			b.Fatalf("%+v, %v", r, err)
		}
		b.StopTimer()
		os.RemoveAll(dst.Dir())
		b.StartTimer()
	}
}
