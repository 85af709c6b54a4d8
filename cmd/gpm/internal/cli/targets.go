package cli

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"gpm/supervisor/api"
)

// configSuffixes tell a config file from an app, as PM2's do.
var configSuffixes = []string{".json", ".json5", ".jsonc", ".config.js", ".config.cjs", ".config.mjs"}

// isConfig tells whether a target is a config file, or "-" for one on stdin.
func isConfig(target string) bool {
	if target == "-" {
		return true
	}
	return slices.ContainsFunc(configSuffixes, func(suffix string) bool { return strings.HasSuffix(target, suffix) })
}

// known is what gpm has, by the words a user may call it.
type known struct{ instances []api.Instance }

// names tells whether a word means something that gpm has: an id, a name, a
// namespace, one instance ("web-2"), "all" or a /regex/.
func (k known) names(word string) bool {
	if word == "all" || isRegex(word) {
		return true
	}
	if id, err := strconv.Atoi(word); err == nil && slices.ContainsFunc(k.instances, func(i api.Instance) bool { return i.ID == id }) {
		return true
	}
	return slices.ContainsFunc(k.instances, func(i api.Instance) bool {
		return i.Name == word || i.Namespace == word || title(i.Name, i.Instance) == word
	})
}

// app is the instances of the app of that name.
func (k known) app(name string) []api.Instance {
	var found []api.Instance
	for _, i := range k.instances {
		if i.Name == name {
			found = append(found, i)
		}
	}
	return found
}

func isRegex(word string) bool {
	return len(word) > 2 && word[0] == '/' && word[len(word)-1] == '/'
}

// completeTargets offers what gpm has; it never starts a daemon.
func (s *session) completeTargets(files bool) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		directive := cobra.ShellCompDirectiveNoFileComp
		if files {
			directive = cobra.ShellCompDirectiveDefault
		}
		l, err := s.client.List(ctx)
		if err != nil {
			return nil, directive
		}
		var words []string
		add := func(w, help string) {
			if strings.HasPrefix(w, word) && !slices.Contains(args, w) {
				words = append(words, w+"\t"+help)
			}
		}
		for _, i := range l.Instances {
			add(i.Name, "app")
			if i.Namespace != "default" {
				add(i.Namespace, "namespace")
			}
			if word != "" {
				add(strconv.Itoa(i.ID), title(i.Name, i.Instance))
			}
		}
		slices.Sort(words)
		return slices.Compact(words), directive
	}
}

// title is how an instance is called in a line of text: "web-0".
func title(name string, instance int) string {
	if instance < 0 {
		return name // it is about the whole app
	}
	return name + "-" + strconv.Itoa(instance)
}
