package config

import (
	"reflect"
	"slices"
)

// Changes says what a new configuration changes of an old one.
type Changes struct {
	HTTP bool // the address to listen on
	Keys bool // the cluster keys
	// TLS: the files named for it; what they hold may change at any time.
	TLS     bool
	MinFree bool
	Verify  bool
	Events  bool // where they are sent to
	Access  bool // who may see and change what
	Sources bool // the source blocks, their order included
	// Added, Removed and Changed are names of streams, in the order of the
	// file that they are from; Changed in the order of the new one.
	Added, Removed, Changed []string
}

// Empty says whether nothing changes.
func (c Changes) Empty() bool {
	return !c.HTTP && !c.Keys && !c.TLS && !c.MinFree && !c.Verify && !c.Events && !c.Access && !c.Sources && len(c.Added)+len(c.Removed)+len(c.Changed) == 0
}

// Compare says what changes from old to new. The order of the streams and where
// they stand in the file do not matter.
func Compare(old, new *Config) Changes {
	c := Changes{
		HTTP: old.HTTP != new.HTTP,
		Keys: !reflect.DeepEqual(append([]string{}, old.ClusterKeys...), append([]string{}, new.ClusterKeys...)),

		TLS:     !old.TLS.equal(new.TLS),
		MinFree: old.MinFree != new.MinFree,
		Verify:  old.Verify != new.Verify,
		Events:  !slices.Equal(old.EventSinks, new.EventSinks),
		Access:  !old.Access.equal(&new.Access),
		Sources: !slices.EqualFunc(old.Sources, new.Sources, (*Source).Equal),
	}
	before := make(map[string]*Stream, len(old.Streams))
	for _, s := range old.Streams {
		before[s.Name] = s
	}
	for _, s := range new.Streams {
		switch was := before[s.Name]; {
		case was == nil:
			c.Added = append(c.Added, s.Name)
		case !was.Equal(s):
			c.Changed = append(c.Changed, s.Name)
		}
		delete(before, s.Name)
	}
	for _, s := range old.Streams {
		if before[s.Name] != nil {
			c.Removed = append(c.Removed, s.Name)
		}
	}
	return c
}

// Equal says whether two streams are configured alike, wherever they stand in
// their files and whether or not defaults were written out.
func (s *Stream) Equal(t *Stream) bool { return reflect.DeepEqual(s.placeless(), t.placeless()) }

// placeless is a copy without positions.
func (s *Stream) placeless() Stream {
	c := *s
	c.Pos, c.DVR.Pos = Pos{}, Pos{}
	c.Inputs = make([]*Input, len(s.Inputs))
	for i, in := range s.Inputs {
		one := *in
		one.Pos, one.has, one.shared = Pos{}, nil, false
		c.Inputs[i] = &one
	}
	return c
}

// Equal says whether two source blocks say the same, wherever they stand.
func (s *Source) Equal(t *Source) bool {
	a, b := *s, *t
	a.Pos, a.DVR.Pos, b.Pos, b.DVR.Pos = Pos{}, Pos{}, Pos{}, Pos{}
	return reflect.DeepEqual(a, b)
}

func (t TLS) equal(u TLS) bool { return t.Cert == u.Cert && t.Key == u.Key && t.CA == u.CA }
