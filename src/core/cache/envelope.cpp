/*-------------------------------------------------------------------------
 *
 * envelope.cpp
 *		Writing and reading envelopes; see envelope.hpp and README.md.
 *
 *-------------------------------------------------------------------------
 */
#include "core/base/error.hpp"
#include "core/cache/envelope.hpp"

namespace cache_ext::cache {

/* 0xFF begins no UTF-8 text, no JSON and no common serialisation. */
constexpr std::string_view kMagic{"\xff"
                                  "CXE",
                                  4};
constexpr char kVersion = 1;
constexpr unsigned char kBySettings = 1;
constexpr size_t kMaxTagSize = 0xffff;

/* Numbers are unsigned, most significant byte first. */
static void
put_number(std::string *out, uint64_t number, int size)
{
	for (int shift = 8 * (size - 1); shift >= 0; shift -= 8)
		out->push_back(static_cast<char>(number >> shift & 0xff));
}

std::string
encode(const Envelope &envelope)
{
	std::string out;

	if (envelope.tags.size() > kMaxTags)
		throw Error(kInvalidParameterValue, "too many tags for one cache entry");

	out.reserve(128 + envelope.key.size() + envelope.payload.size());
	out.append(kMagic);
	out.push_back(kVersion);
	out.push_back(static_cast<char>(envelope.by_settings ? kBySettings : 0));
	out.append(envelope.token.name_space.bytes());
	out.append(envelope.token.incarnation.bytes());
	out.append(envelope.token.versions.bytes());
	out.append(envelope.audience.bytes());
	put_number(&out, envelope.made_at, 8);
	put_number(&out, envelope.fresh_ms, 8);
	put_number(&out, envelope.key.size(), 4);
	out.append(envelope.key);
	put_number(&out, envelope.tags.size(), 2);
	for (std::string_view tag : envelope.tags)
	{
		if (tag.size() > kMaxTagSize)
			throw Error(kInvalidParameterValue, "a tag of a cache entry is too long");
		put_number(&out, tag.size(), 2);
		out.append(tag);
	}
	put_number(&out, envelope.payload.size(), 4);
	out.append(envelope.payload);
	return out;
}

namespace {

/* Takes parts off the front; once something is missing, everything is. */
class Scanner
{
  public:
	explicit Scanner(std::string_view rest) : rest_(rest) {}

	std::string_view take(size_t size)
	{
		if (size > rest_.size())
		{
			good_ = false;
			rest_ = {};
			return {};
		}
		std::string_view part = rest_.substr(0, size);

		rest_.remove_prefix(size);
		return part;
	}

	uint64_t number(size_t size)
	{
		uint64_t number = 0;

		for (unsigned char byte : take(size))
			number = number << 8 | byte;
		return number;
	}

	Digest digest()
	{
		std::string_view bytes = take(Digest::kSize);

		return good_ ? Digest::from_bytes(bytes) : Digest{0, 0};
	}

	bool good() const { return good_; }
	bool finished() const { return good_ && rest_.empty(); }

  private:
	std::string_view rest_;
	bool good_ = true;
};

} /* namespace */

bool
looks_like_envelope(std::string_view bytes) noexcept
{
	return bytes.substr(0, kMagic.size()) == kMagic;
}

std::optional<Envelope>
decode(std::string_view bytes)
{
	Scanner scanner(bytes);
	Envelope envelope{};

	if (scanner.take(kMagic.size()) != kMagic || scanner.number(1) != kVersion)
		return std::nullopt;
	uint64_t flags = scanner.number(1);

	if ((flags & ~uint64_t{kBySettings}) != 0)
		return std::nullopt;
	envelope.by_settings = (flags & kBySettings) != 0;
	envelope.token.name_space = scanner.digest();
	envelope.token.incarnation = scanner.digest();
	envelope.token.versions = scanner.digest();
	envelope.audience = scanner.digest();
	envelope.made_at = scanner.number(8);
	envelope.fresh_ms = scanner.number(8);
	envelope.key = scanner.take(scanner.number(4));

	uint64_t tags = scanner.number(2);

	for (uint64_t i = 0; i < tags && scanner.good(); ++i)
		envelope.tags.push_back(scanner.take(scanner.number(2)));
	envelope.payload = scanner.take(scanner.number(4));
	if (!scanner.finished())
		return std::nullopt;
	return envelope;
}

Digest
digest_namespace(uint64_t system_identifier, uint32_t timeline, uint32_t database,
                 uint32_t bucket_count, uint64_t epoch) noexcept
{
	return Digester()
	    .add(system_identifier)
	    .add(uint64_t{timeline})
	    .add(uint64_t{database})
	    .add(uint64_t{bucket_count})
	    .add(epoch)
	    .finish();
}

Digest
digest_instance(std::string_view run_id, std::string_view master_replid) noexcept
{
	return Digester().add(run_id).add(":").add(master_replid).finish();
}

Digest
digest_incarnation(const Digest &instance, uint32_t redis_database,
                   std::string_view key_prefix) noexcept
{
	return Digester()
	    .add(instance.high)
	    .add(instance.low)
	    .add(uint64_t{redis_database})
	    .add(key_prefix)
	    .finish();
}

} /* namespace cache_ext::cache */
