package ingest

import (
	"errors"
	"strings"
	"testing"
)

func TestRedact(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"udp://239.1.1.1:1234?interface=eth0", "udp://239.1.1.1:1234?interface=eth0"},
		{"udp://@239.1.1.1:1234", "udp://@239.1.1.1:1234"},
		{"srt://h:9000?passphrase=0123456789&latency=120", "srt://h:9000?passphrase=***&latency=120"},
		{"srt://h:9000?latency=120&pass%70hrase=0123456789", "srt://h:9000?latency=120&pass%70hrase=***"},
		{"srt://h:9000?PassPhrase=01&x;token=1", "srt://h:9000?PassPhrase=***&x;token=***"},
		{"srt://h:9000?passphrase=", "srt://h:9000?passphrase="},
		{"srt://h:1?streamid=live/one", "srt://h:1?streamid=live/one"},
		{"srt://h:1?streamid=publish:one:joe:secret", "srt://h:1?streamid=publish:one:***"},
		{"srt://h:1?streamid=publish%3Aone%3Ajoe%3Asecret", "srt://h:1?streamid=publish:one:***"},
		{"srt://h:1?streamid=#!::r=one,m=request,s=tok,pw=x", "srt://h:1?streamid=#!::r=one,m=request,s=***,pw=***"},
		{"rtsp://joe:secret@cam:554/h264", "rtsp://cam:554/h264"},
		{"rtsp://joe:se@cret@cam/h264?channel=1", "rtsp://cam/h264?channel=1"},
		{"rtsp://joe:se/cret@cam/h264", "rtsp://cam/h264"},
		{"rtsp://joe:se?cret@cam/h264", "rtsp://cam/h264"},
		{"rtsp://joe:se?cret@cam/h264?x=1", "rtsp://cam/h264?x=1"},
		{"https://h:8443/a@b/c.ts?token=abc&name=joe", "https://h:8443/a@b/c.ts?token=***&name=joe"},
		{"http://[::1]:80/a@b?q=joe@example.com", "http://[::1]:80/a@b?q=joe@example.com"},
		{"http://h/x?mail=joe@example.com", "http://h/x?mail=joe@example.com"},
		{"rtp://239.1.1.1:5000,239.1.1.2:5000", "rtp://239.1.1.1:5000,239.1.1.2:5000"},
		{"srt://h:1?pasphrase=0123456789&latency=1", "srt://h:1?pasphrase=***&latency=1"},
		{"udp://h:1?tokn=abc&interface=lo", "udp://h:1?tokn=***&interface=lo"},
		{"http://h/x?hdntl=a&Policy=b&Key-Pair-Id=c&md5=d&st=e&x=f", "http://h/x?hdntl=***&Policy=***&Key-Pair-Id=***&md5=***&st=***&x=f"},
		{"http:/joe:Sss@h/x.ts", "http:/***@h/x.ts"},
		{"http:joe:Sss@h/x.ts", "***@h/x.ts"},
		{"http:/h/x.ts?token=abc", "http:/h/x.ts?token=***"},
		{"joe:S/s@x@h/x.ts", "***@h/x.ts"},
		{"joe.x:Sss@h/x.ts", "***@h/x.ts"},
		{"12:30@home.ts", "***@home.ts"}, {"rec/12:30@home.ts", "rec/12:30@home.ts"},
		{"-", "-"}, {"", ""}, {"/a/b:c?passphrase=x", "/a/b:c?passphrase=x"}, {"file:/a@b", "file:/a@b"},
	} {
		if got := Redact(c.in); got != c.want {
			t.Errorf("Redact(%q) = %q, want %q", c.in, got, c.want)
		}
		if again := Redact(c.want); again != c.want {
			t.Errorf("Redact(%q) = %q: not idempotent", c.want, again)
		}
	}
}

func TestURLErrorHidesSecrets(t *testing.T) {
	err := Check("nosuch://joe:secret@h:1?passphrase=0123456789")
	var u *URLError
	if !errors.As(err, &u) {
		t.Fatalf("Check: %v, want a *URLError", err)
	}
	if s := err.Error(); strings.Contains(s, "secret") || strings.Contains(s, "0123456789") {
		t.Errorf("the error shows the secrets: %s", s)
	}
}

// TestMisspeltURL takes URLs without their slashes for what they are.
func TestMisspeltURL(t *testing.T) {
	for url, want := range map[string]string{
		"http:/joe:Sss@h/x.ts":    "http://",
		"SRT:h:1?passphrase=Sss":  "srt://",
		"joe:Sss@h/x.ts":          "http:// or rtsp://",
		"http:/h/x.ts?token=Sss1": "http://",
	} {
		_, err := Open(t.Context(), url, Options{})
		if err == nil || !strings.Contains(err.Error(), "no such file") || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "Sss") {
			t.Errorf("Open(%q): %v, want %q and no secret", url, err, want)
		}
	}
}

func FuzzRedact(f *testing.F) {
	for _, s := range []string{"srt://h:9000?passphrase=SECRET&x=1", "rtsp://u:SECRET@h/p", "http://u:p?SECRET@h/?token=SECRET",
		"srt://:1?streamid=#!::s=SECRET", "a://b?streamid=%zz", "://?=&;=", "rtsp://u:a/SECRET@h", "http:/u:SECRET@h/x?token=SECRET", "u:SECRET@h@x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := Redact(s)
		if again := Redact(got); again != got {
			t.Fatalf("Redact(%q) = %q, and of that %q", s, got, again)
		}
		// Whatever stands before: the value of a passphrase is never shown.
		if strings.ContainsAny(s, "?@") || strings.Contains(s, "://") {
			return
		}
		if got := Redact("srt://h:1?" + s + "&passphrase=0pEnSeSaMe&" + s); strings.Contains(got, "0pEnSeSaMe") {
			t.Fatalf("Redact shows the passphrase: %q", got)
		}
	})
}
