package server

import (
	"time"

	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
)

// drainSpread is the longest time over which clients are asked to reconnect, so that not all come at once.
const drainSpread = 10 * time.Second

// drain lets the sessions go: new ones are refused, all clients are told, and those that stay are waited for.
func (s *Server) drain() {
	s.health.SetServingStatus("", healthv1.HealthCheckResponse_NOT_SERVING)
	s.drainNow()
	deadline := time.Now().Add(s.cfg.DrainTimeout)
	all := s.sessions.startDrain(deadline, min(drainSpread, s.cfg.DrainTimeout/2))
	s.log.Info("draining", "sessions", len(all), "timeout", s.cfg.DrainTimeout.String())
	late := time.NewTimer(time.Until(deadline))
	defer late.Stop()
	for _, ses := range all {
		select {
		case <-ses.mux.Done():
		case <-late.C:
			late.Reset(0)
		}
	}
}

// stop ends what is left and waits for it. grpc's own graceful stop would wait for streams that never end.
func (s *Server) stop() {
	s.drainNow()
	s.endNow()
	for _, ses := range s.sessions.startDrain(time.Now(), 0) {
		ses.mux.End(errDraining)
	}
	if s.web != nil { // first: grpc-go would cut its calls off, whose status is still on its way
		s.web.stop(webStopWithin)
	}
	graceful := time.AfterFunc(stopWithin, func() {
		s.log.Warn("calls had not ended and are cut off", "after", stopWithin.String())
		s.grpc.Stop()
	})
	s.grpc.GracefulStop()
	graceful.Stop()
	s.running.Wait()
	s.endWait()
	s.clusters.close()
	s.log.Info("stopped")
}

// stopWithin is how long calls may take to end once their sessions have.
const stopWithin = 5 * time.Second
