package cli

import (
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"gpm/supervisor/api"
)

func (s *session) jlist() *cobra.Command {
	var env bool
	c := &cobra.Command{
		Use:   "jlist",
		Short: "Print the list as JSON in the shape of pm2 jlist",
		Long: `Print the list as JSON in the shape of pm2 jlist, for tools that read that:
[{pid, name, pm2_env, pm_id, monit}]. What PM2 does not have is in pm2_env.gpm:
streams, traffic, old processes. Values of environment variables are "[redacted]"
without --env. Without a daemon it prints [] and starts none.`,
		Args: atMost(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := s.client.Describe(cmd.Context(), env)
			if err != nil && !errors.Is(err, api.ErrNoDaemon) {
				return err
			}
			rows := make([]pm2Process, 0, len(all))
			for i := range all {
				rows = append(rows, pm2Row(&all[i], env))
			}
			data, err := json.Marshal(rows)
			if err != nil {
				return fmt.Errorf("write JSON: %w", err)
			}
			s.out.Println(string(data))
			return nil
		},
	}
	c.Flags().BoolVar(&env, "env", false, "show the environment with its values")
	return c
}

// pm2Process is one element of pm2 jlist.
type pm2Process struct {
	PID   int            `json:"pid"`
	Name  string         `json:"name"`
	Env   map[string]any `json:"pm2_env"`
	ID    int            `json:"pm_id"`
	Monit pm2Monit       `json:"monit"`
}

type pm2Monit struct {
	Memory uint64  `json:"memory"` // bytes
	CPU    float64 `json:"cpu"`    // percent
}

// extras are what gpm knows and PM2 does not, in gpm's own names and as gpm list
// --json has it.
type extras struct {
	Streams   int            `json:"streams"`
	Idle      int            `json:"idle"`
	Queue     int            `json:"queue"`
	Traffic   api.Traffic    `json:"traffic"`
	Steering  string         `json:"steering"`
	Health    string         `json:"health"`
	Draining  int            `json:"draining"`
	Outgoing  []api.Outgoing `json:"outgoing"`
	Standby   int            `json:"standby"`
	Listeners []api.Listener `json:"listeners"`
	Ages      []api.AgeCount `json:"ages"`
	DependsOn []string       `json:"depends_on"`
}

func extrasOf(d *api.Description) extras {
	return extras{
		Streams: d.Streams, Idle: d.Idle, Queue: d.Queue, Traffic: d.Traffic, Steering: d.Steering, Health: d.Health,
		Draining: d.Draining, Outgoing: nonNil(d.Outgoing), Standby: d.Standby, Listeners: nonNil(d.Listeners), Ages: nonNil(d.Ages),
		DependsOn: nonNil(d.DependsOn),
	}
}

// pm2Row has every key of pm2_env that tools are known to read. What gpm has
// no notion of is there and empty, so that nothing trips over a missing key.
func pm2Row(d *api.Description, env bool) pm2Process {
	i, app := d.Instance, &d.App
	interpreter := "none"
	if app.Interpreter != "" {
		interpreter = filepath.Base(app.Interpreter)
	}
	out := map[string]any{}
	if env { // PM2 has the environment twice: here flat, and below as env
		for k, v := range app.Env {
			out[k] = v
		}
	}
	status := i.Status
	if status == api.Pending { // PM2 has no word for it
		status = api.Launching
	}
	for k, v := range map[string]any{
		"name": i.Name, "namespace": i.Namespace, "version": cmp.Or(i.Version, missing), "node_version": missing,
		"pm_id": i.ID, "status": status, "username": i.User, "unique_id": uniqueID(i),
		"pm_uptime": millis(i.Started), "created_at": millis(i.Created),
		"restart_time": i.Restarts, "unstable_restarts": i.Unstable, "exit_code": exitCode(i.LastExit),
		"exec_mode": i.Mode + "_mode", "exec_interpreter": interpreter, "node_args": nonNil(app.InterpreterArgs),
		"pm_exec_path": app.Script, "args": nonNil(app.Args), "pm_cwd": app.Cwd,
		"instances": app.Instances, "NODE_APP_INSTANCE": i.Instance,
		"pm_out_log_path": i.OutFile, "pm_err_log_path": i.ErrorFile, "pm_pid_path": "", "merge_logs": app.MergeLogs,
		"log_date_format": app.LogDateFormat, "log_type": app.LogType,
		"watch": i.Watching, "autorestart": app.Autorestart, "max_restarts": app.MaxRestarts,
		"min_uptime": app.MinUptime.D().Milliseconds(), "restart_delay": app.RestartDelay.D().Milliseconds(),
		"kill_timeout": app.KillTimeout.D().Milliseconds(), "listen_timeout": app.ListenTimeout.D().Milliseconds(),
		"wait_ready": app.WaitReady, "cron_restart": app.CronRestart, "max_memory_restart": app.MaxMemory,
		"env": nonNilMap(app.Env), "axm_monitor": struct{}{}, "axm_actions": []any{}, "axm_options": struct{}{},
		"gpm": extrasOf(d),
	} {
		out[k] = v
	}
	return pm2Process{PID: i.PID, Name: i.Name, Env: out, ID: i.ID, Monit: pm2Monit{i.Memory, i.CPU}}
}

// millis is a time as JavaScript has it; 0 for none.
func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// exitCode is a shell's: 128 and the signal's number are not known here, so a
// death by a signal is -1, never PM2's 0.
func exitCode(e *api.Exit) int {
	if e == nil {
		return 0
	}
	return e.Code
}

// uniqueID is the same for an instance as long as it exists.
func uniqueID(i api.Instance) string {
	h := sha256.Sum256(fmt.Appendf(nil, "%s/%d/%d/%d", i.Name, i.Instance, i.ID, i.Created.UnixNano()))
	return fmt.Sprintf("%x-%x-%x-%x-%x", h[0:4], h[4:6], h[6:8], h[8:10], h[10:16])
}

func nonNil[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

func nonNilMap(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}
