package config

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestDurations(t *testing.T) {
	for _, v := range []struct {
		s    string
		want time.Duration
		err  string
	}{
		{"10s", 10 * time.Second, ""},
		{"0s", 0, ""},
		{"250ms", 250 * time.Millisecond, ""},
		{"90m", 90 * time.Minute, ""},
		{"3d", 72 * time.Hour, ""},
		{"2w", 14 * 24 * time.Hour, ""},
		{"1d12h", 36 * time.Hour, ""},
		{"1.5h", 90 * time.Minute, ""},
		{"1m500ms", time.Minute + 500*time.Millisecond, ""},
		{"", 0, "empty"},
		{"10", 0, "10 has no unit; write 10s, 10m, 10h or 10d"},
		{"-3d", 0, "no duration"},
		{"s", 0, "no duration"},
		{"3 d", 0, "unknown unit"},
		{"3min", 0, "unknown unit"},
		{"3D", 0, "unknown unit"},
		{"1.2.3s", 0, "no duration"},
		{".s", 0, "no duration"},
		{"99999999999d", 0, "too long"},
		{"1e9s", 0, "unknown unit"},
		{"٣d", 0, "no duration"},
		{strings.Repeat("x", 1000), 0, "no duration"},
	} {
		got, err := ParseDuration(v.s)
		check(t, v.s, got, v.want, err, strings.Replace(v.err, "no duration", "is not a duration", 1))
	}
}

func TestSizes(t *testing.T) {
	for _, v := range []struct {
		s    string
		want int64
		err  string
	}{
		{"0", 0, ""},
		{"1500", 1500, ""},
		{"1K", 1 << 10, ""},
		{"50M", 50 << 20, ""},
		{"1.5G", 3 << 29, ""},
		{"2t", 2 << 40, ""},
		{"2GiB", 2 << 30, ""},
		{"", 0, "is not a size"},
		{"G", 0, "is not a size"},
		{"-1G", 0, "is not a size"},
		{"1.5", 0, "whole number of bytes"},
		{"1GB", 0, "unknown unit"},
		{"1iB", 0, "unknown unit"},
		{"1P", 0, "unknown unit"},
		{"99999999T", 0, "too large"},
	} {
		got, err := ParseSize(v.s)
		check(t, v.s, got, v.want, err, v.err)
	}
}

func TestRates(t *testing.T) {
	for _, v := range []struct {
		s    string
		want int64
		err  string
	}{
		{"50M", 50 << 20, ""},
		{"500K/s", 500 << 10, ""},
		{"1000", 1000, ""},
		{"0", 0, "lets nothing pass"},
		{"8Mbit", 0, "is in bits"},
		{"8Mbps", 0, "is in bits"},
		{"fast", 0, "is not a rate"},
	} {
		got, err := ParseRate(v.s)
		check(t, v.s, got, v.want, err, v.err)
	}
}

func check[T comparable](t *testing.T, s string, got, want T, err error, wantErr string) {
	t.Helper()
	switch {
	case wantErr == "" && (err != nil || got != want):
		t.Errorf("%q: %v, %v; want %v", s, got, err, want)
	case wantErr != "" && (err == nil || !strings.Contains(err.Error(), wantErr) || len(err.Error()) > 300):
		t.Errorf("%q: %v; want %q", s, err, wantErr)
	}
}

func TestDurationsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := time.Duration(rapid.Int64Range(0, int64(100*366*24*time.Hour/time.Millisecond)).Draw(t, "ms")) * time.Millisecond
		s := FormatDuration(d)
		if got, err := ParseDuration(s); err != nil || got != d {
			t.Fatalf("%v is written %q and read %v, %v", d, s, got, err)
		}
	})
}

func TestPeers(t *testing.T) {
	for _, v := range []struct {
		s    string
		want Peer
		err  string
	}{
		{"m4f://b/example", Peer{"m4f", "b", 8081, "example"}, ""},
		{"m4f://flussonic_2.myhosting.com:9000/sport/hd", Peer{"m4f", "flussonic_2.myhosting.com", 9000, "sport/hd"}, ""},
		{"m4fs://[2001:db8::1]/a", Peer{"m4fs", "2001:db8::1", 8081, "a"}, ""},
		{"m4f://[fe80::1%25eth0]:80/a", Peer{"m4f", "fe80::1%eth0", 80, "a"}, ""},
		{"m4f://b/sport%20hd/%C3%BC", Peer{"m4f", "b", 8081, "sport hd/ü"}, ""},
		{"m4f://b", Peer{}, "names no stream"},
		{"m4f://b/", Peer{}, "names no stream"},
		{"m4f:///x", Peer{}, "names no host"},
		{"m4f://b:/x", Peer{}, "is no port"},
		{"m4f://b:0/x", Peer{}, "is no port"},
		{"m4f://b:65536/x", Peer{}, "is no port"},
		{"m4f://b:http/x", Peer{}, "invalid port"},
		{"m4f://::1/x", Peer{}, "brackets"},
		{"m4f://fe80::1:80/x", Peer{}, "brackets"},
		{"m4f://key@b/x", Peer{}, "keep it in a file"},
		{"m4f://u:key@b/x", Peer{}, "keep it in a file"},
		{"m4f://b/x?y=1", Peer{}, "something after"},
		{"m4f://b/x#y", Peer{}, "something after"},
		{"m4f://b/../x", Peer{}, "climb out"},
		{"m4f://b/x/..", Peer{}, "climb out"},
		{"m4f://b/%2e%2e%2fx", Peer{}, "climb out"},
		{"m4f://b/x%00", Peer{}, "control character"},
		{"m4f://b/x%5cy", Peer{}, "backslash"},
		{"m4f://b/x%ff", Peer{}, "not UTF-8"},
		{"m4f://b//x", Peer{}, "begin with a slash"},
		{"m4f://b/x/", Peer{}, "empty"},
		{"m4f:b/x", Peer{}, "no peer"},
		{"http://b/x", Peer{}, "no peer"},
		{"m4f://b/x/m4f", Peer{}, "part of the protocol's addresses"},
		{"m4f://b/m4f", Peer{"m4f", "b", 8081, "m4f"}, ""},
		{"m4f://b/.x", Peer{}, "begin with a dot"},
		{"m4f://b/" + strings.Repeat("x", 256), Peer{}, "longer than 255 bytes"},
		{"m4f://b/" + strings.Repeat("x/", 8) + "x", Peer{}, "more than 8 parts"},
	} {
		got, err := ParsePeer(v.s)
		check(t, v.s, got, v.want, err, v.err)
		if err == nil {
			if again, err := ParsePeer(got.String()); err != nil || again != got {
				t.Errorf("%s is written %s and read %+v, %v", v.s, got, again, err)
			}
		}
	}
	if _, err := ParsePeer("m4f://user:s3cret@b/x"); strings.Contains(err.Error(), "s3cret") {
		t.Errorf("the key is shown: %v", err)
	}
}
