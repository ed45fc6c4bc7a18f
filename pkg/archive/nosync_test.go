package archive

import (
	"io/fs"

	"github.com/twindvr/twindvr/pkg/fsx"
)

// noSync is a file system that makes nothing durable, for tests that write much
// and cut no power.
type noSync struct{ fsx.FS }

func (n noSync) SyncDir(string) error { return nil }

func (n noSync) OpenFile(name string, flag int, perm fs.FileMode) (fsx.File, error) {
	f, err := n.FS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return noSyncFile{f}, nil
}

type noSyncFile struct{ fsx.File }

func (f noSyncFile) Sync() error     { return nil }
func (f noSyncFile) Datasync() error { return nil }
