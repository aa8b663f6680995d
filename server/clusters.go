package server

import (
	"context"

	"github.com/sluice-gateway/sluice/auth"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
)

// ListClusters implements ClusterService.
func (s *Server) ListClusters(ctx context.Context, _ *sluicev1.ListClustersRequest) (*sluicev1.ListClustersResponse, error) {
	p, err := principal(ctx)
	if err != nil {
		return nil, err
	}
	return &sluicev1.ListClustersResponse{Clusters: s.cfg.Clusters.List(p)}, nil
}

// ListResources implements ClusterService.
func (s *Server) ListResources(ctx context.Context, r *sluicev1.ListResourcesRequest) (*sluicev1.ListResourcesResponse, error) {
	p, err := principal(ctx)
	if err != nil {
		return nil, err
	}
	up, err := s.cfg.Clusters.Resolve(r.GetCluster(), p)
	if err != nil {
		return nil, err
	}
	return up.Resources(ctx)
}

// principal is who calls; the interceptor lets nobody through without one.
func principal(ctx context.Context) (*auth.Principal, error) {
	if p, ok := auth.FromContext(ctx); ok {
		return p, nil
	}
	return nil, status.Unauthenticated(sluicev1.Reason_REASON_MISSING_CREDENTIAL, "no principal")
}
