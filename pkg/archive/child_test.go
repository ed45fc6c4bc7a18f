package archive

import "fmt"

const childEnv = "TWINDVR_ARCHIVE_CHILD"

func childMain(dir string) int { fmt.Println(dir); return 2 }
