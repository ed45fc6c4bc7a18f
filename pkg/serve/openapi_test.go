package serve

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/twindvr/twindvr/pkg/event"
	"github.com/twindvr/twindvr/pkg/m4fhttp"
)

// The types that answers are made of have the fields that the document gives them,
// and those that may be absent are not required.
func TestDocumentHasTypes(t *testing.T) {
	var doc struct {
		Components struct {
			Schemas map[string]struct {
				Properties map[string]any
				Required   []string
			}
		}
	}
	if err := json.Unmarshal(openAPI, &doc); err != nil {
		t.Fatal(err)
	}
	described := map[string]any{
		"Problem": m4fhttp.Problem{}, "Mistake": m4fhttp.Mistake{}, "NodeStatus": NodeStatus{}, "SourceStatus": SourceStatus{}, "StreamStatus": StreamStatus{},
		"InputStatus": InputStatus{}, "PeerStatus": PeerStatus{}, "ArchiveStatus": ArchiveStatus{}, "VerifyStatus": VerifyStatus{}, "SalvageStatus": SalvageStatus{},
		"Backfill": Backfill{}, "Coverage": Coverage{}, "CoverageSpan": CoverageSpan{}, "KeptSpan": KeptSpan{}, "Gaps": Gaps{}, "AskedPeer": AskedPeer{},
		"Gap": Gap{}, "Cause": Cause{}, "Peers": Peers{}, "PeerNode": PeerNode{}, "PeerStream": PeerStream{}, "Backlog": Backlog{}, "StreamBacklog": StreamBacklog{},
		"PeerBacklog": PeerBacklog{}, "Events": Events{}, "Event": event.Event{}, "Keeps": Keeps{}, "Keep": Keep{}, "NewKeep": NewKeep{}, "NewBackfill": newBackfill{}, "Reload": Reload{},
	}
	for name, v := range described {
		schema := doc.Components.Schemas[name]
		var fields, always []string
		for f := range reflect.TypeOf(v).Fields() {
			field, opt, _ := strings.Cut(f.Tag.Get("json"), ",")
			if fields = append(fields, field); opt == "" {
				always = append(always, field)
			}
		}
		for f := range schema.Properties {
			if !slices.Contains(fields, f) {
				t.Errorf("%s: the document has %s and %T has not", name, f, v)
			}
		}
		for _, f := range fields {
			if schema.Properties[f] == nil {
				t.Errorf("%s: %T has %s and the document has not", name, v, f)
			}
		}
		if strings.HasPrefix(name, "New") {
			continue // of those it says what must be sent
		}
		slices.Sort(always)
		slices.Sort(schema.Required)
		if !slices.Equal(always, schema.Required) {
			t.Errorf("%s: always there is %v, required %v", name, always, schema.Required)
		}
	}
	for name := range doc.Components.Schemas {
		if _, ok := described[name]; !ok && name != "TimeIn" && name != "StateSeconds" {
			t.Errorf("no type is held to %s", name)
		}
	}
}

// filled is a status of which every field has a value.
func filled(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		filled(v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range v.Len() {
			filled(v.Index(i))
		}
	case reflect.Struct:
		if t, ok := v.Addr().Interface().(*time.Time); ok {
			*t = time.Date(2026, 11, 22, 12, 0, 0, 5e6, time.UTC)
			return
		}
		for i := range v.NumField() {
			filled(v.Field(i))
		}
	case reflect.String:
		v.SetString("text")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Float64:
		v.SetFloat(1.5)
	default:
		if v.CanInt() {
			v.SetInt(7)
		} else {
			v.SetUint(7)
		}
	}
}

// fullStatus is the status of a node with one stream, of which there is something
// of everything.
func fullStatus() NodeStatus {
	var st NodeStatus
	filled(reflect.ValueOf(&st).Elem())
	st.Streams = st.Streams[:1]
	s := &st.Streams[0]
	s.Name, s.Mode, s.Backfill.State = "sport/hd", Recovery, BackfillRunning
	for i := range s.Inputs {
		s.Inputs[i].State, s.Inputs[i].Standby = "good", "hot"
	}
	s.Peers = s.Peers[:1]
	return st
}

// Every call of the document answers, with what it is described to answer, and is
// asked as it is described to be asked.
func TestDocumentHolds(t *testing.T) {
	doc := newDocument(t)
	n := newAPI(t)
	n.fail = nil
	asked := map[string]bool{}
	for _, c := range []struct {
		method, route, target, body string
		want                        int
	}{
		{"GET", "streams", "streams", "", 200},
		{"GET", "coverage", "coverage?stream=sport/hd", "", 200},
		{"GET", "coverage", "coverage?stream=sport%2Fhd&from=2026-11-22T12:00:00Z&to=1795350000&step=3600&node=" + n.peer, "", 200},
		{"GET", "coverage", "coverage?stream=other", "", 404},
		{"GET", "coverage", "coverage?stream=sport/hd&node=m4f://elsewhere/x", "", 404},
		{"GET", "gaps", "gaps?stream=sport/hd&limit=10", "", 200},
		{"GET", "peers", "peers", "", 200},
		{"GET", "backlog", "backlog?stream=sport/hd", "", 200},
		{"GET", "backlog", "backlog", "", 200},
		{"GET", "events", "events?from=1795340000&to=1795360000&limit=3", "", 200},
		{"GET", "events", "events?from=-1d12h&to=now", "", 200},
		{"POST", "keeps", "keeps", `{"stream":"sport/hd","name":"last","from":"-1h","to":"now"}`, 201},
		{"GET", "events", "events?stream=sport/hd&from=1795340000&to=1795360000", "", 200},
		{"POST", "keeps", "keeps", `{"stream":"sport/hd","name":"final","from":"2026-11-22T12:00:00Z","to":1795350000.5}`, 201},
		{"POST", "keeps", "keeps", `{"stream":"sport/hd","name":"final","from":"2026-11-22T12:00:00Z","to":1795350000.5}`, 409},
		{"POST", "keeps", "keeps", `{"stream":"sport/hd","from":"1795349000","to":"2026-11-22T14:00:00+01:00"}`, 201},
		{"GET", "keeps", "keeps", "", 200},
		{"GET", "keeps", "keeps?stream=sport/hd", "", 200},
		{"DELETE", "keeps/{name}", "keeps/final?stream=sport/hd", "", 204},
		{"DELETE", "keeps/{name}", "keeps/final?stream=sport/hd", "", 404},
		{"POST", "backfill", "backfill", `{"stream":"sport/hd","from":"2026-11-22T12:00:00Z","to":1795350000}`, 202},
		{"POST", "backfill", "backfill", `{"stream":"sport/hd","peer":"m4f://elsewhere/x"}`, 404},
		{"POST", "reload", "reload", "", 200},
		{"POST", "reload", "reload", "{}", 422},
		{"GET", "openapi.json", "openapi.json", "", 200},
	} {
		asked[strings.ToLower(c.method)+" /api/v1/"+c.route] = true
		n.fail = nil
		if c.want == 422 {
			n.fail = mistakes()
		}
		req := httptest.NewRequest(c.method, "http://localhost:8081/api/v1/"+c.target, strings.NewReader(c.body))
		req.RemoteAddr = "127.0.0.1:5"
		req.ContentLength = int64(len(c.body))
		if c.body != "" {
			req.Header.Set("Content-Type", "application/json")
		}
		w := httptest.NewRecorder()
		n.h.ServeHTTP(w, req)
		if w.Code != c.want {
			t.Errorf("%s %s: %d, want %d: %s", c.method, c.target, w.Code, c.want, w.Body)
			continue
		}
		for _, err := range doc.check(c.route, req, c.body, w) {
			t.Errorf("%s %s: %v\n%s", c.method, c.target, err, w.Body)
		}
	}
	asked["get /api/v1/events/live"] = true // TestEventsLive
	for path, methods := range doc.root["paths"].(map[string]any) {
		for method := range methods.(map[string]any) {
			if !asked[method+" "+path] {
				t.Errorf("%s %s was not asked", method, path)
			}
			delete(asked, method+" "+path)
		}
	}
	for what := range asked {
		t.Errorf("%s is not in the document", what)
	}
}

// document is the API's description, as far as answers are held to it.
type document struct {
	root     map[string]any
	compiler *jsonschema.Compiler
}

func newDocument(t *testing.T) *document {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(openAPI))
	if err != nil {
		t.Fatal(err)
	}
	d := &document{root: v.(map[string]any), compiler: jsonschema.NewCompiler()}
	d.compiler.AssertFormat()
	if err := d.compiler.AddResource("file:///openapi.json", v); err != nil {
		t.Fatal(err)
	}
	for name := range d.root["components"].(map[string]any)["schemas"].(map[string]any) {
		if _, err := d.compiler.Compile("file:///openapi.json#/components/schemas/" + name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	return d
}

// at follows references and names from a place in the document.
func (d *document) at(v any, names ...string) any {
	for _, name := range append(names, "") {
		if m, ok := v.(map[string]any); ok && m["$ref"] != nil {
			v = d.root
			for part := range strings.SplitSeq(strings.TrimPrefix(m["$ref"].(string), "#/"), "/") {
				v = v.(map[string]any)[part]
			}
		}
		if name != "" {
			m, _ := v.(map[string]any)
			v = m[name]
		}
	}
	return v
}

// valid holds text to the schema of a body.
func (d *document) valid(content any, kind string, text []byte) error {
	media, ok := content.(map[string]any)[kind].(map[string]any)
	if !ok {
		return fmt.Errorf("the content type %s is not described", kind)
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return err
	}
	ref, ok := media["schema"].(map[string]any)["$ref"].(string)
	if !ok {
		return nil // any object
	}
	schema, err := d.compiler.Compile("file:///openapi.json" + ref)
	if err != nil {
		return err
	}
	return schema.Validate(v)
}

// check holds a request and its answer to what the document says of a route.
func (d *document) check(route string, r *http.Request, body string, w *httptest.ResponseRecorder) (errs []error) {
	op := d.at(d.root, "paths").(map[string]any)["/api/v1/"+route].(map[string]any)[strings.ToLower(r.Method)]
	known, required := map[string]bool{}, []string{}
	list, _ := d.at(op, "parameters").([]any)
	for _, p := range list {
		name := d.at(p, "name").(string)
		if known[name] = d.at(p, "in") == "query"; known[name] && d.at(p, "required") == true {
			required = append(required, name)
		}
	}
	for name := range r.URL.Query() {
		if !known[name] {
			errs = append(errs, fmt.Errorf("the query has %s", name))
		}
	}
	for _, name := range required {
		if !r.URL.Query().Has(name) {
			errs = append(errs, fmt.Errorf("the query lacks %s", name))
		}
	}
	if content := d.at(op, "requestBody", "content"); content != nil {
		if err := d.valid(content, "application/json", []byte(body)); err != nil {
			errs = append(errs, fmt.Errorf("request: %w", err))
		}
	}
	answers := d.at(op, "responses").(map[string]any)
	answer := answers[fmt.Sprint(w.Code)]
	if answer == nil {
		answer = answers["default"]
	}
	if content := d.at(answer, "content"); content == nil {
		if w.Body.Len() > 0 || w.Code >= 400 {
			errs = append(errs, fmt.Errorf("the answer %d is to be empty", w.Code))
		}
	} else if err := d.valid(content, w.Header().Get("Content-Type"), w.Body.Bytes()); err != nil {
		errs = append(errs, err)
	}
	return errs
}
