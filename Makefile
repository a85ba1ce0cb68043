EXTENSION = cache_ext
MODULE_big = cache_ext
OBJS = $(patsubst %.cpp,%.o,$(wildcard src/pg/*.cpp src/ext/*.cpp src/ext/*/*.cpp src/core/*/*.cpp))
DATA = $(wildcard sql/cache_ext--*.sql)

REGRESS = install statistics promises queries indexes collations changes preset invalidation cache sessions operate redis hostile   # in running order
ISOLATION = fold_insert fold_locks savepoints write_skew join_skew create_and_truncate lost_index second_watch
ISOLATION_OPTS = --inputdir=test/isolation --load-extension=cache_ext

PG_CONFIG ?= pg_config
PG_CPPFLAGS = -I$(srcdir)/src -isystem $(shell $(PG_CONFIG) --includedir-server)
PG_CXXFLAGS = -std=c++17 -Wall -Wextra -Werror -MMD -MP $(SANITIZE)   # PGXS tracks no headers itself
SHLIB_LINK = -lhiredis -lssl -lcrypto -lstdc++ $(SANITIZE)
EXTRA_CLEAN = $(OBJS:.o=.d)
override with_llvm = no                                # bitcode would only serve JIT inlining

PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)
-include $(OBJS:.o=.d)
