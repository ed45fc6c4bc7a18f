// Command twindvr keeps the DVR archive of a live stream on two servers.
package main

import (
	"os"

	"github.com/twindvr/twindvr/pkg/cli"
)

func main() {
	os.Exit(cli.Main(os.Args[1:], cli.System()))
}
