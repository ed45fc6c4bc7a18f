package cli

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/config"
)

// completer returns what a word can be completed to.
type completer func(cmd *cobra.Command, io IO, args []string, word string) ([]string, cobra.ShellCompDirective)

// argCompleters are those of each command's arguments, in their order; the last one
// stands for all that follow. What is not named completes files.
var argCompleters = map[string][]completer{
	"ingest":       {schemes},
	"testsrc":      {schemes},
	"record":       {streamDirs, nothing},
	"keep":         {streamDirs, nothing},
	"serve-m4f":    {onlyDirs, nothing},
	"diff-archive": {archives, archives, nothing},
	"backfill":     {archives, archives, words("-"), nothing},
	"export":       {archives, nothing},
	"ls":           {archives, nothing},
	"verify":       {streamDirs, nothing},
	"prune":        {streamDirs},
	"status":       {nodeStreams, nodeStreams, nothing},
	"token":        {nothing},
}

// flagCompleters are those of flags by name, for every command that has them. Flags
// of a FILE complete files, all others nothing.
var flagCompleters = map[string]completer{
	"record":    streamDirs,
	"stream":    nodeStreams,
	"sync":      words("1s", "always", "off"),
	"release":   keptNames,
	"order":     words("oldest", "newest"),
	"format":    words("mp4", "ts"),
	"log-level": words("debug", "info", "warn", "error"),
	"interface": interfaces,
}

// addCompletions has shells complete the arguments and flags of all commands.
func addCompletions(root *cobra.Command, io IO) {
	for _, cmd := range append(root.Commands(), root) {
		if list := argCompleters[cmd.Name()]; list != nil {
			cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, word string) ([]cobra.Completion, cobra.ShellCompDirective) {
				_ = flagsFromEnv(cmd, io.LookupEnv) // a bad variable is told when the command runs
				return list[min(len(args), len(list)-1)](cmd, io, args, word)
			}
		}
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) { completeFlag(cmd, f, io) })
	}
}

func completeFlag(cmd *cobra.Command, f *pflag.Flag, io IO) {
	kind, _ := pflag.UnquoteUsage(f)
	complete := flagCompleters[f.Name]
	if complete == nil && kind == "FILE" {
		return
	}
	if complete == nil {
		complete = nothing
	}
	// It fails only where the flag has one already.
	_ = cmd.RegisterFlagCompletionFunc(f.Name, func(cmd *cobra.Command, args []string, word string) ([]cobra.Completion, cobra.ShellCompDirective) {
		_ = flagsFromEnv(cmd, io.LookupEnv)
		return complete(cmd, io, args, word)
	})
}

func nothing(*cobra.Command, IO, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveNoFileComp
}

func onlyDirs(*cobra.Command, IO, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveFilterDirs
}

// words completes words of a list.
func words(list ...string) completer {
	return func(_ *cobra.Command, _ IO, _ []string, word string) ([]string, cobra.ShellCompDirective) {
		return beginning(list, word), cobra.ShellCompDirectiveNoFileComp
	}
}

// beginning returns those of a list that begin with a word.
func beginning(list []string, word string) (out []string) {
	for _, s := range list {
		if strings.HasPrefix(s, word) {
			out = append(out, s)
		}
	}
	return out
}

// schemes completes the beginning of a source's or a receiver's URL.
func schemes(cmd *cobra.Command, _ IO, _ []string, word string) ([]string, cobra.ShellCompDirective) {
	if strings.Contains(word, "://") {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	list := []string{"udp://", "rtp://", "srt://"}
	if cmd.Name() == "ingest" {
		list = append(list, "rtsp://", "http://", "https://", "m4f://", "m4fs://")
	}
	return beginning(list, word), cobra.ShellCompDirectiveNoSpace
}

func interfaces(_ *cobra.Command, _ IO, _ []string, word string) ([]string, cobra.ShellCompDirective) {
	var names []string
	list, err := net.Interfaces()
	if err == nil {
		for _, i := range list {
			names = append(names, i.Name)
		}
	}
	return beginning(names, word), cobra.ShellCompDirectiveNoFileComp
}

// mostCompletions is how many directories are looked at.
const mostCompletions = 1000

// streamDirs completes the directory of a stream: streams, and directories on the
// way to some.
func streamDirs(_ *cobra.Command, _ IO, _ []string, word string) ([]string, cobra.ShellCompDirective) {
	dir, prefix := filepath.Split(word)
	at := dir
	if at == "" {
		at = "."
	}
	if isStream(at) { // what is in it is not for people
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	entries, err := os.ReadDir(at)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []string
	further := cobra.ShellCompDirectiveNoFileComp
	for _, e := range entries[:min(len(entries), mostCompletions)] {
		name := e.Name()
		if !strings.HasPrefix(name, prefix) || name[0] == '.' && prefix == "" {
			continue
		}
		path := filepath.Join(at, name)
		if st, err := os.Stat(path); err != nil || !st.IsDir() {
			continue
		}
		if isStream(path) {
			out = append(out, dir+name)
			continue
		}
		out = append(out, dir+name+"/")
		further |= cobra.ShellCompDirectiveNoSpace
	}
	return out, further
}

func isStream(dir string) bool {
	_, err := archive.Open(dir)
	return err == nil
}

// archives completes the directory of a stream, or a peer with the streams that it
// has.
func archives(cmd *cobra.Command, io IO, args []string, word string) ([]string, cobra.ShellCompDirective) {
	if config.IsPeerURL(word) {
		return peerStreams(cmd, word), cobra.ShellCompDirectiveNoFileComp
	}
	out, how := streamDirs(cmd, io, args, word)
	if len(word) > 0 && len(out) == 0 {
		if urls := beginning([]string{"m4f://", "m4fs://"}, word); len(urls) > 0 {
			return urls, cobra.ShellCompDirectiveNoSpace | cobra.ShellCompDirectiveNoFileComp
		}
	}
	return out, how
}

// completeWithin is how long somebody who waits for a completion waits for a node.
const completeWithin = 2 * time.Second

// peerStreams are the URLs of a peer's streams that begin as a URL does.
func peerStreams(cmd *cobra.Command, word string) []string {
	scheme, rest, _ := strings.Cut(word, "://")
	host, _, named := strings.Cut(rest, "/")
	if !named {
		return nil
	}
	root := scheme + "://" + host + "/"
	peer, err := config.ParsePeer(root + "x")
	if err != nil {
		return nil
	}
	o := peerOptions{keyFile: flagText(cmd, "cluster-key-file"), tlsCA: flagText(cmd, "tls-ca")}
	client, err := o.client(peer)
	if err != nil {
		return nil
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(cmd.Context(), completeWithin)
	defer cancel()
	list, _, err := client.Streams(ctx)
	if err != nil {
		return nil
	}
	var out []string
	for i := range list {
		out = append(out, root+list[i].Name)
	}
	return beginning(out, word)
}

// flagText is the value of a flag; empty where the command has none of the name.
func flagText(cmd *cobra.Command, name string) string {
	f := cmd.Flags().Lookup(name)
	if f == nil {
		return ""
	}
	return f.Value.String()
}

// nodeStreams completes the names of a running node's streams: of the one whose
// address is among the arguments, or of this machine's.
func nodeStreams(cmd *cobra.Command, _ IO, args []string, word string) ([]string, cobra.ShellCompDirective) {
	const none = cobra.ShellCompDirectiveNoFileComp
	addr := ""
	if i := slices.IndexFunc(args, isNode); i >= 0 && cmd.Name() == "status" {
		addr = args[i]
	}
	if len(args) > 0 && addr == "" {
		return nil, none // the stream is given
	}
	c, err := newAPIClient(addr, flagText(cmd, "api-key-file"))
	if err != nil {
		return nil, none
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completeWithin)
	defer cancel()
	st, err := c.status(ctx)
	if err != nil {
		return nil, none
	}
	var out []string
	for i := range st.Streams {
		out = append(out, st.Streams[i].Name)
	}
	return beginning(out, word), none
}

// keptNames completes the names of the spans that are kept of the stream in the
// command's directory.
func keptNames(_ *cobra.Command, _ IO, args []string, word string) ([]string, cobra.ShellCompDirective) {
	const none = cobra.ShellCompDirectiveNoFileComp
	if len(args) == 0 {
		return nil, none
	}
	s, err := archive.Open(args[0])
	if err != nil {
		return nil, none
	}
	kept, err := s.Kept()
	if err != nil {
		return nil, none
	}
	var out []string
	for i := range kept {
		out = append(out, kept[i].Name)
	}
	return beginning(out, word), none
}
