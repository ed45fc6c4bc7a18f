package serve

import "time"

// VerifyStatus says how the archive's bytes were last read again and checked.
type VerifyStatus struct {
	Running bool       `json:"running"`
	Began   *time.Time `json:"began,omitempty"` // the pass that runs or waits to go on
	At      *time.Time `json:"at,omitempty"`    // the hour that it has come to
	Ended   *time.Time `json:"ended,omitempty"` // the last complete pass
	Due     *time.Time `json:"due,omitempty"`   // the next one; absent: never
	// Of the pass that runs, or else of the last complete one.
	Segments int   `json:"segments"`
	Bytes    int64 `json:"bytes"`
	Bad      int   `json:"bad"`    // segments set aside, for a peer to heal
	Mended   int   `json:"mended"` // places written back
	// Aside are segments that were set aside before the pass, are still bad, and of
	// which the archive has no other copy.
	Aside int `json:"aside"`
	// SetAside is how often segments were set aside since the node began, by
	// passes and by readers that met them.
	SetAside int64  `json:"set_aside"`
	Error    string `json:"error,omitempty"` // why a pass broke off
}
