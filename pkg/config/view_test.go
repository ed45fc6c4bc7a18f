package config

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

const (
	secret1 = "0123456789abcdef"
	secret2 = "fedcba9876543210"
	hash    = "$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC"
)

func access(t *testing.T, text string) *Access {
	t.Helper()
	c, err := Parse("x.conf", []byte(text+"\nstream a { url udp://h:1; dvr /s 1d; }"), sources())
	if err != nil {
		t.Fatal(err)
	}
	return &c.Access
}

func TestAccess(t *testing.T) {
	for _, c := range []struct {
		text string
		want Access
	}{
		{"", Access{}},
		{"view_auth off; cors off;", Access{Open: true}},
		{`view_auth basic ann "p w" bob ` + hash + ";", Access{Users: []User{{"ann", "p w"}, {"bob", hash}}}},
		{"view_auth basic ann pw; view_auth basic bob pw;", Access{Users: []User{{"ann", "pw"}, {"bob", "pw"}}}},
		{"view_auth token " + secret1 + "; view_auth basic a b;", Access{Users: []User{{"a", "b"}}, TokenSecrets: []string{secret1}}},
		{"view_auth token " + secret1 + " " + secret2 + ";", Access{TokenSecrets: []string{secret1, secret2}}},
		{"cors *;", Access{Origins: []string{"*"}}},
		{"cors https://A.example:443 http://[::1]:8080;", Access{Origins: []string{"https://a.example", "http://[::1]:8080"}}},
		{"api_read_key " + secret1 + "; api_write_key " + secret2 + " " + secret1 + ";", Access{ReadKeys: []string{secret1}, WriteKeys: []string{secret2, secret1}}},
	} {
		got := access(t, c.text)
		if !got.equal(&c.want) || got.Closed() != (!c.want.Open && c.want.Users == nil && c.want.TokenSecrets == nil) {
			t.Errorf("%s: %+v", c.text, got)
		}
		if again := access(t, "\n\n"+c.text); !again.equal(got) {
			t.Errorf("%s: another place in the file makes a difference", c.text)
		}
	}
	if u := access(t, "view_auth basic a b c "+hash+";").Users; u[0].Hashed() || !u[1].Hashed() {
		t.Errorf("%+v", u)
	}
	changed, err := Parse("x.conf", []byte("view_auth off; stream a { url udp://h:1; dvr /s 1d; }"), sources())
	if err != nil {
		t.Fatal(err)
	}
	plain, err := Parse("x.conf", []byte("stream a { url udp://h:1; dvr /s 1d; }"), sources())
	if err != nil {
		t.Fatal(err)
	}
	if got := Compare(plain, changed); !reflect.DeepEqual(got, Changes{Access: true}) || got.Empty() {
		t.Errorf("%+v", got)
	}
}

// What is wrong is said with its place, and without what may be a secret.
func TestAccessMistakes(t *testing.T) {
	const cut = "$2y$05$c4WoMPo3SXsafkva"
	for _, c := range []struct{ text, want string }{
		{"view_auth;", "1:10: view_auth is incomplete; expected view_auth off|basic"},
		{"view_auth hunter22;", "1:11: unknown kind of access; expected view_auth off|basic"},
		{"view_auth tokn hunter22;", "1:11: unknown kind of access (did you mean token?)"},
		{"view_auth off hunter22;", `expected view_auth off;`},
		{"view_auth basic ann;", "1:20: view_auth basic wants a password for each user"},
		{"view_auth basic a hunter22 b;", "wants a password for each user"},
		{`view_auth basic "" hunter22;`, "1:17: no name of a user"},
		{"view_auth basic a:hunter22 x;", "holds a colon"},
		{`view_auth basic a "";`, "the password of a is empty"},
		{"view_auth basic a hunter22 a hunter22;", "a second password for the user a"},
		{"view_auth basic a " + cut + ";", "the password of a is a hash that is cut, or not bcrypt"},
		{"view_auth basic a " + strings.Replace(hash, "$05$", "$19$", 1) + ";", "is hashed at a cost of 19; the most is 14"},
		{"view_auth token hunter22;", "1:17: the secret of tokens is shorter than 16 bytes"},
		{"view_auth token;", "expected view_auth token SECRET"},
		{"view_auth token " + strings.Repeat(secret1+" ", 3) + ";", "expected view_auth token SECRET [OTHER_SECRET];"},
		{"view_auth token " + secret1 + " " + secret1 + "; view_auth token " + secret2 + ";", "more than 2 of them"},
		{"view_auth off; view_auth basic a b;", "1:16: view_auth off lets everybody in; it excludes passwords and tokens"},
		{"view_auth token_file;", "expected the path of a file"},
		{"view_auth basic_file a b;", "expected the path of a file, and nothing else"},
		{"cors a.example;", `1:6: "a.example" is no origin; expected http://HOST`},
		{"cors https://a.example/;", "is no origin"},
		{"cors https://u@a.example;", "is no origin"},
		{"cors * https://a.example;", "* is any origin; it stands alone"},
		{"cors off https://a.example;", `"off" is no origin`},
		{"cors *; cors *;", "a second cors"},
		{"api_read_key hunter22;", "1:14: the read key is shorter than 16 bytes"},
		{"api_write_key " + secret1 + " " + secret1 + " x;", "unexpected"},
	} {
		_, err := Parse("x.conf", []byte(c.text+"\nstream a { url udp://h:1; dvr /s 1d; }"), sources())
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter22") && !strings.Contains(c.text, "off hunter22") {
			t.Errorf("%s: %v, want %s", c.text, err, c.want)
		}
	}
}

// Secrets may stand in files of their own, beside the file that names them, and
// that may be one of nothing else.
func TestAccessFiles(t *testing.T) {
	dir := t.TempDir()
	write := writer(t, dir)
	write("users", "# those who watch\nann:p:w\n\nbob:"+hash+"\r\n")
	write("secret", "\n"+secret1+"\n")
	write("read", secret1+"\n"+secret2+"\n")
	write("write", secret2)
	statements := "view_auth basic_file users;\nview_auth token_file secret; api_read_key_file read; api_write_key_file write; cors *;"
	want := Access{
		Users: []User{{"ann", "p:w"}, {"bob", hash}}, TokenSecrets: []string{secret1}, Origins: []string{"*"},
		ReadKeys: []string{secret1, secret2}, WriteKeys: []string{secret2},
	}
	conf, own := write("x.conf", statements+"\nstream a { url udp://h:1; dvr /s 1d; }"), write("access", statements)
	c, err := Load(conf, sources())
	if err != nil || !c.Access.equal(&want) {
		t.Errorf("%+v, %v", c, err)
	}
	a, err := LoadAccess(own)
	if err != nil || !a.equal(&want) {
		t.Errorf("%+v, %v", a, err)
	}
	if s, err := LoadTokenSecret(filepath.Join(dir, "secret")); s != secret1 || err != nil {
		t.Errorf("%q, %v", s, err)
	}
	for _, c := range []struct{ name, text, want string }{
		{"users", "hunter22", "access:1:22: file of users " + dir + "/users: line 1: expected USER:PASSWORD"},
		{"users", "#\n", "it holds no user"},
		{"users", "a:$apr1$hunter22", "line 1: the password of a is a hash that is cut, or not bcrypt"},
		{"users", "a:b\na:c", "line 2: a second password for the user a"},
		{"users", strings.Repeat("a", maxKeyFile+1), "longer than"},
		{"secret", "hunter22", "access:2:22: file of the secret of tokens " + dir + "/secret: line 1: the secret of tokens is shorter than 16 bytes"},
		{"secret", "\n", "it holds no secret of tokens"},
		{"access", "http 8081;", `"http" belongs outside of blocks`},
		{"access", "view_auth token_file none;", "no such file"},
	} {
		before, err := os.ReadFile(filepath.Join(dir, c.name))
		if err != nil {
			t.Fatal(err)
		}
		write(c.name, c.text)
		if _, err := LoadAccess(own); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter22") {
			t.Errorf("%s %.20q: %v, want %s", c.name, c.text, err, c.want)
		}
		write(c.name, string(before))
	}
	if _, err := LoadAccess(filepath.Join(dir, "none")); err == nil {
		t.Error("a file that is not there")
	}
	if _, err := LoadTokenSecret(filepath.Join(dir, "users")); err == nil || strings.Contains(err.Error(), "p:w") {
		t.Errorf("%v", err)
	}
}

// Whatever a file of users holds, what is taken of it are users that can come.
func FuzzUsers(f *testing.F) {
	for _, s := range []string{"ann:p:w\n", "# x\n\nbob:" + hash + "\r\n", ":", "a:", "a\x00:b", "a:$2y$99$"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var a Access
		if err := a.takeUsers(text); err != nil {
			if strings.ContainsAny(err.Error(), "\n\r\x00") {
				t.Fatalf("not a line: %q", err)
			}
			return
		}
		if len(a.Users) == 0 || len(a.Users) > maxUsers {
			t.Fatalf("%d users", len(a.Users))
		}
		for _, u := range a.Users {
			if u.Name == "" || u.Password == "" || strings.ContainsAny(u.Name, ":\n\x00") || strings.ContainsAny(u.Password, "\n\x00") {
				t.Fatalf("%+v", u)
			}
		}
	})
}
